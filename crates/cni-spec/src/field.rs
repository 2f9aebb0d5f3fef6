//! A cursor over parsed JSON that knows its path, so that every refusal names the field, its value and the remedy.
//!
//! The input is parsed once into a [`Value`] and read by hand: derived deserializers name a line and a column only,
//! and stop being cheap where several spellings are allowed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use serde_json::Value;

use crate::address::parse_ip;
use crate::error::{CniError, ErrorCode};
use crate::excerpt;
use crate::nearest::nearest;

/// The most bytes that a plugin reads from stdin, and that any parser here looks at: 1 MiB.
pub const MAX_INPUT_LEN: usize = 1 << 20;

/// The kernel's bound on a path, with its NUL (`PATH_MAX`, `linux/limits.h`).
const PATH_MAX: usize = 4096;

/// Parses `bytes` into one JSON object; `what` names it in errors.
pub(crate) fn parse_object(bytes: &[u8], what: &str) -> Result<Value, CniError> {
    let refuse = |reason: String| {
        CniError::new(ErrorCode::Decode, format!("failed to decode {what}: {reason}; give one JSON object"))
    };
    if bytes.len() > MAX_INPUT_LEN {
        return Err(refuse(format!("more than {MAX_INPUT_LEN} bytes were given")));
    }
    if bytes.is_empty() {
        return Err(refuse("the input is empty".to_owned()));
    }
    let value: Value = serde_json::from_slice(bytes).map_err(|cause| refuse(cause.to_string()))?;
    if value.is_object() { Ok(value) } else { Err(refuse(format!("it is {}", excerpt::value(&value)))) }
}

/// Where a field stands. Lives on the stack, and becomes text only in an error.
#[derive(Clone, Copy)]
enum Path<'p> {
    Root(&'static str),
    Key(&'p Path<'p>, &'static str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(label) => f.write_str(label),
            Self::Key(Self::Root(""), key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// One value of the input and its path.
#[derive(Clone, Copy)]
pub(crate) struct Field<'p, 'v> {
    path: Path<'p>,
    value: &'v Value,
    code: ErrorCode,
}

impl<'v> Field<'_, 'v> {
    /// The network configuration itself; paths start with its keys.
    pub(crate) fn conf(value: &'v Value) -> Field<'static, 'v> {
        Field { path: Path::Root(""), value, code: ErrorCode::InvalidNetworkConfig }
    }

    /// Another document; paths start with `label`, and refusals carry [`ErrorCode::Decode`].
    pub(crate) fn document(label: &'static str, value: &'v Value) -> Field<'static, 'v> {
        Field { path: Path::Root(label), value, code: ErrorCode::Decode }
    }

    /// The field under `key`; absent and `null` are the same, as for the reference library.
    ///
    /// A key in other letters of the same case-folded spelling is taken where the exact one is absent: that is how Go
    /// decodes, and containerd relies on it (`HostPort`, `ContainerPort`: go-cni's types have no names for JSON).
    pub(crate) fn get<'s>(&'s self, key: &'static str) -> Result<Option<Field<'s, 'v>>, CniError> {
        let Value::Object(fields) = self.value else {
            return Err(self.refuse("give an object"));
        };
        let in_any_case =
            || fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        let value = fields.get(key).or_else(in_any_case);
        Ok(value.filter(|value| !value.is_null()).map(|value| Field {
            path: Path::Key(&self.path, key),
            value,
            code: self.code,
        }))
    }

    /// Refuses a key that is none of `known`: a misspelt wish must not be one that is silently not granted.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), CniError> {
        let Some(unknown) = self.unknown(known).next() else { return Ok(()) };
        let remedy = match nearest(unknown, known) {
            Some(meant) => format!("write `{meant}`, or remove it"),
            None => format!("remove it; the keys here are {}", known.join(", ")),
        };
        let object = match self.path {
            Path::Root("") => String::new(),
            path => format!(" of `{path}`"),
        };
        Err(CniError::new(
            self.code,
            format!("key {}{object} is not known: {remedy}", excerpt::quoted(unknown)),
        ))
    }

    /// The unknown keys that are nearly one of `known`, each with that one.
    pub(crate) fn near_misses(&self, known: &[&'static str]) -> Vec<(&'v str, &'static str)> {
        self.unknown(known).filter_map(|key| Some((key, nearest(key, known)?))).collect()
    }

    fn unknown<'k>(&self, known: &'k [&'k str]) -> impl Iterator<Item = &'v str> + use<'v, 'k> {
        let keys = self.value.as_object().into_iter().flat_map(serde_json::Map::keys);
        keys.map(String::as_str).filter(|key| !known.iter().any(|known| known.eq_ignore_ascii_case(key)))
    }

    /// Reads the field under `key`, if it is there.
    pub(crate) fn optional<'s, T>(
        &'s self,
        key: &'static str,
        read: impl FnOnce(Field<'s, 'v>) -> Result<T, CniError>,
    ) -> Result<Option<T>, CniError> {
        self.get(key)?.map(read).transpose()
    }

    /// Reads the field under `key`, which must be there.
    pub(crate) fn required<'s, T>(
        &'s self,
        key: &'static str,
        remedy: &str,
        read: impl FnOnce(Field<'s, 'v>) -> Result<T, CniError>,
    ) -> Result<T, CniError> {
        self.optional(key, read)?.ok_or_else(|| self.missing(key, remedy))
    }

    /// The items of a list of at most `max`.
    pub(crate) fn list<'s>(
        &'s self,
        max: usize,
    ) -> Result<impl ExactSizeIterator<Item = Field<'s, 'v>>, CniError> {
        let Value::Array(items) = self.value else {
            return Err(self.refuse("give a list"));
        };
        if items.len() > max {
            return Err(self.refuse(format!("{} entries are too many; give at most {max}", items.len())));
        }
        Ok(items.iter().enumerate().map(|(index, value)| Field {
            path: Path::Index(&self.path, index),
            value,
            code: self.code,
        }))
    }

    /// Reads every item of the list under `key`; an absent list is empty.
    pub(crate) fn each<T>(
        &self,
        key: &'static str,
        max: usize,
        read: impl FnMut(Field<'_, 'v>) -> Result<T, CniError>,
    ) -> Result<Vec<T>, CniError> {
        match self.get(key)? {
            Some(list) => list.list(max)?.map(read).collect(),
            None => Ok(Vec::new()),
        }
    }

    /// The entries of an object of at most `max` texts.
    pub(crate) fn texts(&self, max: usize) -> Result<BTreeMap<String, String>, CniError> {
        let Value::Object(fields) = self.value else {
            return Err(self.refuse("give an object"));
        };
        if fields.len() > max {
            return Err(self.refuse(format!("{} entries are too many; give at most {max}", fields.len())));
        }
        let entry = |(key, value): (&String, &Value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(CniError::new(
                self.code,
                format!(
                    "key {} of `{}` is {}: give a text in quotes",
                    excerpt::quoted(key),
                    self.path,
                    excerpt::value(value)
                ),
            )),
        };
        fields.iter().map(entry).collect()
    }

    pub(crate) fn text(self) -> Result<&'v str, CniError> {
        self.value.as_str().ok_or_else(|| self.refuse("give a text in quotes"))
    }

    pub(crate) fn owned_text(self) -> Result<String, CniError> {
        self.text().map(str::to_owned)
    }

    pub(crate) fn boolean(self) -> Result<bool, CniError> {
        self.value.as_bool().ok_or_else(|| self.refuse("give true or false, without quotes"))
    }

    /// A whole number within `bounds`.
    pub(crate) fn number(self, bounds: RangeInclusive<u64>) -> Result<u64, CniError> {
        self.value.as_u64().filter(|number| bounds.contains(number)).ok_or_else(|| {
            let unquoted = if self.value.is_string() { ", without quotes" } else { "" };
            self.refuse(format!("give a whole number from {} to {}{unquoted}", bounds.start(), bounds.end()))
        })
    }

    /// A whole number within `bounds` that also fits `T`.
    pub(crate) fn number_as<T: TryFrom<u64>>(self, bounds: RangeInclusive<u64>) -> Result<T, CniError> {
        T::try_from(self.number(bounds)?)
            .map_err(|_| self.refuse("the number is too large; give a smaller one"))
    }

    pub(crate) fn ip(self) -> Result<IpAddr, CniError> {
        parse_ip(self.text()?).ok_or_else(|| self.refuse("give an IPv4 or IPv6 address without a prefix"))
    }

    /// An address, or nothing where the text is empty: so Go writes one that was not given.
    pub(crate) fn ip_or_none(self) -> Result<Option<IpAddr>, CniError> {
        if self.text()?.is_empty() { Ok(None) } else { self.ip().map(Some) }
    }

    /// An absolute path. It is not looked up.
    pub(crate) fn absolute_path(self) -> Result<PathBuf, CniError> {
        let text = self.text()?;
        if !text.starts_with('/') {
            return Err(self.refuse("give an absolute path, one that starts with `/`"));
        }
        if text.contains('\0') {
            return Err(self.refuse("a path cannot hold a NUL; remove it"));
        }
        if text.len() >= PATH_MAX {
            return Err(self.refuse(format!("a path has less than {PATH_MAX} bytes; shorten it")));
        }
        Ok(PathBuf::from(text))
    }

    /// One of `choices`, by name.
    pub(crate) fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Result<T, CniError> {
        let text = self.text()?;
        choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = choices
                .iter()
                .filter(|(name, _)| !name.is_empty())
                .map(|(name, _)| format!("`{name}`"))
                .collect();
            self.refuse(format!("give one of {}", names.join(", ")))
        })
    }

    /// The refusal of this field's value; `remedy` ends the sentence.
    pub(crate) fn refuse(&self, remedy: impl fmt::Display) -> CniError {
        CniError::new(self.code, format!("`{}` is {}: {remedy}", self.path, excerpt::value(self.value)))
    }

    /// The refusal of a value for which the kernel or the specification has a way, and this plugin has none.
    pub(crate) fn unsupported(&self, remedy: impl fmt::Display) -> CniError {
        CniError { code: ErrorCode::UnsupportedField, ..self.refuse(remedy) }
    }

    /// The refusal of this field in words that name the value themselves.
    pub(crate) fn refuse_because(&self, reason: impl fmt::Display) -> CniError {
        CniError::new(self.code, format!("`{}`: {reason}", self.path))
    }

    /// The same for the field under `key`, whether or not it was given.
    pub(crate) fn refuse_key_because(&self, key: &'static str, reason: impl fmt::Display) -> CniError {
        CniError::new(self.code, format!("`{}`: {reason}", Path::Key(&self.path, key)))
    }

    /// The complaint that the field under `key` was not given.
    pub(crate) fn missing(&self, key: &'static str, remedy: impl fmt::Display) -> CniError {
        CniError::new(self.code, format!("`{}` is missing: {remedy}", Path::Key(&self.path, key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_path_value_and_remedy() {
        let value = parse_object(br#"{"ipam":{"ranges":[[{}],[{"x":"y"},7]]}}"#, "it").unwrap();
        let conf = Field::conf(&value);
        let ipam = conf.get("ipam").unwrap().unwrap();
        let ranges = ipam.get("ranges").unwrap().unwrap();
        let second = ranges.list(9).unwrap().nth(1).unwrap();
        let seven = second.list(9).unwrap().nth(1).unwrap();
        assert_eq!(seven.ip().unwrap_err().msg, "`ipam.ranges[1][1]` is 7: give a text in quotes");
        assert_eq!(
            second.list(1).err().unwrap().msg,
            "`ipam.ranges[1]` is a list: 2 entries are too many; give at most 1"
        );
        assert_eq!(conf.missing("name", "add it").msg, "`name` is missing: add it");
    }

    #[test]
    fn null_is_absent() {
        let value = parse_object(br#"{"mtu":null}"#, "it").unwrap();
        assert!(Field::conf(&value).get("mtu").unwrap().is_none());
    }

    #[test]
    fn a_key_is_found_in_any_case_and_the_exact_one_wins() {
        let value = parse_object(br#"{"HostIP":"a","hostip":"b","hostPort":1,"HOSTPORT":2}"#, "it").unwrap();
        let conf = Field::conf(&value);
        assert_eq!(conf.get("hostIP").unwrap().unwrap().text(), Ok("a"));
        assert_eq!(conf.get("hostPort").unwrap().unwrap().number(0..=9), Ok(1));
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_one_that_was_meant() {
        let value =
            parse_object(br#"{"ipam":{"Ranges":[],"dataDri":"/x"},"mtuu":7,"foreign":{}}"#, "it").unwrap();
        let conf = Field::conf(&value);
        let ipam = conf.get("ipam").unwrap().unwrap();
        assert_eq!(ipam.only(&["ranges", "dataDri"]), Ok(()));
        assert_eq!(
            ipam.only(&["ranges", "dataDir"]).unwrap_err().msg,
            "key `dataDri` of `ipam` is not known: write `dataDir`, or remove it"
        );
        assert_eq!(
            ipam.only(&["ranges", "type"]).unwrap_err().msg,
            "key `dataDri` of `ipam` is not known: remove it; the keys here are ranges, type"
        );
        assert_eq!(conf.near_misses(&["mtu", "ipam"]), [("mtuu", "mtu")]);
    }

    #[test]
    fn what_is_not_one_object_is_not_decoded() {
        let large = vec![b' '; MAX_INPUT_LEN + 1];
        let deep = "[".repeat(100_000);
        for bytes in [&b""[..], b"[]", b"{", b"{}{}", b"7", b"\xff", &large, deep.as_bytes()] {
            let error = parse_object(bytes, "the network configuration").unwrap_err();
            assert_eq!(error.code, ErrorCode::Decode);
            assert!(error.msg.len() < 300, "{error}");
        }
    }

    #[test]
    fn paths_are_absolute_and_bounded() {
        for text in ["", "relative", "./x", "/nul\0", &format!("/{}", "x".repeat(PATH_MAX))] {
            let value = Value::from(text);
            assert!(Field::conf(&value).absolute_path().is_err(), "{text:?}");
        }
    }
}
