//! The fields of a message of Protocol Buffers (protobuf.dev/programming-guides/encoding), as far as reading a few of
//! them takes.

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtobufError {
    /// It ends within a field.
    #[error("the message is cut short")]
    CutShort,
    /// A number of more than 64 bits.
    #[error("a number of the message is longer than 64 bits")]
    LongNumber,
    /// A wire type other than a number, bytes, or 4 or 8 bytes.
    #[error("a field of the message has wire type {0}, which there is none of")]
    WireType(u64),
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A number in seven bits a byte, or in 4 or 8 bytes; nobody here reads it.
    Number,
    /// A string, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, each with its number. Ends after the first error.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const fn of(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), ProtobufError> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => self.varint().map(|_| Value::Number)?,
            1 => self.take(8).map(|_| Value::Number)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).unwrap_or(usize::MAX))?)
            }
            5 => self.take(4).map(|_| Value::Number)?,
            other => return Err(ProtobufError::WireType(other)),
        };
        Ok((key >> 3, value))
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = *self.take(1)? else { return Err(ProtobufError::CutShort) };
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(ProtobufError::LongNumber)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(ProtobufError::CutShort)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Result<Vec<(u64, Value<'_>)>, ProtobufError> {
        Fields::of(message).collect()
    }

    #[test]
    fn every_wire_type_is_passed_over_or_read() {
        let message = b"\x08\x96\x01\x12\x02hi\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0";
        let expected = [(1, Value::Number), (2, Value::Bytes(b"hi")), (3, Value::Number), (4, Value::Number)];
        assert_eq!(read(message).unwrap(), expected);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_not_an_endless_one() {
        assert_eq!(read(b"\x12\x05hi"), Err(ProtobufError::CutShort));
        assert_eq!(read(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), Err(ProtobufError::CutShort));
        assert_eq!(read(&[0xff; 12]), Err(ProtobufError::LongNumber));
        assert_eq!(read(b"\x0b"), Err(ProtobufError::WireType(3)));
        assert_eq!(Fields::of(&[0xff; 12]).count(), 1);
    }
}
