//! Comments, as nft keeps them: a type, a length and a text in the user data of tables, chains, rules, sets, elements.

/// nft's own limit (`NFTNL_UDATA_COMMENT_MAXLEN`), less the NUL.
const MAX_LEN: usize = 127;

/// `NFTNL_UDATA_{TABLE,CHAIN,RULE,SET_ELEM}_COMMENT`.
pub(super) const COMMENT: u8 = 0;
/// `NFTNL_UDATA_SET_COMMENT`.
pub(super) const SET_COMMENT: u8 = 7;
/// `NFTNL_UDATA_SET_KEYBYTEORDER`.
pub(super) const SET_KEY_BYTE_ORDER: u8 = 0;
/// `NFTNL_UDATA_SET_DATABYTEORDER`.
pub(super) const SET_DATA_BYTE_ORDER: u8 = 1;

/// A text beside an object of nftables. What nft could not read back is replaced when one is made: quotes and control
/// characters become `'` and spaces, and what is longer than 127 bytes is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Comment(String);

impl Comment {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Comment {
    fn from(text: &str) -> Self {
        let mut kept = String::with_capacity(text.len().min(MAX_LEN));
        for c in text.chars() {
            let c = match c {
                '"' => '\'',
                c if c.is_control() => ' ',
                c => c,
            };
            if kept.len() + c.len_utf8() > MAX_LEN {
                break;
            }
            kept.push(c);
        }
        Self(kept)
    }
}

impl From<String> for Comment {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

/// A type, a length, a value. The comment's own limit keeps the length below 256.
pub(super) fn write_comment(out: &mut Vec<u8>, kind: u8, comment: &Comment) {
    let length = u8::try_from(comment.0.len() + 1).unwrap_or(u8::MAX);
    out.extend_from_slice(&[kind, length]);
    out.extend_from_slice(comment.0.as_bytes());
    out.push(0);
}

/// A type, a length, and four bytes in the machine's order.
pub(super) fn write_u32(out: &mut Vec<u8>, kind: u8, value: u32) {
    out.extend_from_slice(&[kind, 4]);
    out.extend_from_slice(&value.to_ne_bytes());
}

/// The comment of this type in somebody's user data, if there is one.
pub(super) fn read_comment(mut rest: &[u8], wanted: u8) -> Option<Comment> {
    while let [kind, length, behind @ ..] = rest {
        let value = behind.get(..usize::from(*length))?;
        if *kind == wanted {
            let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
            return Some(Comment(String::from_utf8_lossy(&value[..end]).into_owned()));
        }
        rest = &behind[usize::from(*length)..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_text_becomes_a_comment_that_is_read_back(text in ".{0,300}") {
            let comment = Comment::from(text.as_str());
            let mut data = Vec::new();
            write_u32(&mut data, 9, 1);
            write_comment(&mut data, COMMENT, &comment);
            prop_assert_eq!(read_comment(&data, COMMENT), Some(comment));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind: u8) {
            let _ = read_comment(&bytes, kind);
        }
    }
}
