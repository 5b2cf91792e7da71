//! Permissions of a file, as people write them: octal digits. It knows nothing of whose they are.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// `"0660"`: who may connect to a Unix socket, which takes the right to write (unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Permissions(u32);

/// Reading, writing and executing, by the owner, the group and others.
const ALL: u32 = 0o777;
/// Writing, by any of them.
const ANY_WRITES: u32 = 0o222;

impl From<Permissions> for u32 {
    fn from(written: Permissions) -> u32 {
        written.0
    }
}

impl From<u32> for Permissions {
    fn from(mode: u32) -> Permissions {
        Permissions(mode)
    }
}

impl<'de> Deserialize<'de> for Permissions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Permissions;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("permissions in octal digits, in quotes, such as \"0660\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Permissions, E> {
                permissions(text)
                    .map(Permissions)
                    .map_err(|(what, help)| E::custom(format_args!("\"{text}\" {what}\n{help}")))
            }
            // 660 and 0o660 are different numbers, and which of them was written isn't known here.
            fn visit_i64<E: Error>(self, _: i64) -> Result<Permissions, E> {
                let what =
                    "permissions stand in quotes: as a number they could be octal or decimal";
                Err(E::custom(format_args!("{what}\n{FORM}")))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for Permissions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:04o}", self.0))
    }
}

const FORM: &str = "such as \"0660\" for the owner and the group, or \"0666\" for everyone";

/// The permissions that `text` states, or what is wrong with them and what to do.
fn permissions(text: &str) -> Result<u32, (&'static str, &'static str)> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let is_octal =
        (3..=4).contains(&digits.len()) && digits.bytes().all(|of| matches!(of, b'0'..=b'7'));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    match mode.ok_or(("has not three or four octal digits", FORM))? {
        mode if mode > ALL => Err(("has a bit that means nothing for a socket", FORM)),
        mode if mode & ANY_WRITES == 0 => {
            Err(("lets no process connect: that takes the right to write", FORM))
        }
        mode => Ok(mode),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal_digits_that_let_some_process_connect() {
        for (text, expected) in [
            ("0660", Some(0o660)),
            ("660", Some(0o660)),
            ("0o600", Some(0o600)),
            ("0777", Some(0o777)),
            ("002", Some(2)),
        ] {
            assert_eq!(permissions(text).ok(), expected, "{text}");
        }
        for text in ["", "66", "00660", "0680", "1660", "0444", "000", "+66", "rw-rw----", "0x1b0"]
        {
            assert!(permissions(text).is_err(), "{text}");
        }
    }
}
