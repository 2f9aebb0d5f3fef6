//! Comparing bytes: what the language does by itself is a call of the C library's.

/// Whether both are the same bytes.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

/// What stands behind `beginning`, if `text` begins so.
pub(crate) fn behind<'a>(text: &'a [u8], beginning: &[u8]) -> Option<&'a [u8]> {
    let (begun, rest) = text.split_at_checked(beginning.len())?;
    same(begun, beginning).then_some(rest)
}

/// Where `byte` first occurs.
pub(crate) fn position(text: &[u8], byte: u8) -> Option<usize> {
    text.iter().position(|each| *each == byte)
}

/// A letter or digit, then letters, digits, `_`, `.` and `-`: what container ids and networks' names are made of.
pub(crate) fn is_identifier(text: &[u8]) -> bool {
    let is_allowed = |byte: &u8| byte.is_ascii_alphanumeric() || position(b"_.-", *byte).is_some();
    text.len() <= 200 && text.first().is_some_and(u8::is_ascii_alphanumeric) && text.iter().all(is_allowed)
}
