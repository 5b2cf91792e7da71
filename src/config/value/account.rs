//! Users and groups, as people write them: by name or by number. Whether there is one is for the system to say.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// `"www-data"`, `"65532"` or `65532`; an empty text is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Account(Option<String>);

/// The number that stands for "as it is" in the kernel's calls, and is no user's and no group's (setresuid(2)).
const NONE: u32 = u32::MAX;

impl From<Account> for Option<String> {
    fn from(written: Account) -> Option<String> {
        written.0
    }
}

impl From<Option<String>> for Account {
    fn from(account: Option<String>) -> Account {
        Account(account)
    }
}

impl<'de> Deserialize<'de> for Account {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Account;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name in quotes, or a number")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Account, E> {
                let is_number = !text.is_empty() && text.bytes().all(|of| of.is_ascii_digit());
                if is_number && !text.parse().is_ok_and(|number: u32| number != NONE) {
                    return Err(wrong(text));
                }
                Ok(Account(Some(text.to_owned()).filter(|text| !text.is_empty())))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Account, E> {
                match u32::try_from(number) {
                    Ok(number) if number != NONE => Ok(Account(Some(number.to_string()))),
                    _ => Err(wrong(&number.to_string())),
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for Account {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_deref().unwrap_or_default())
    }
}

fn wrong<E: Error>(number: &str) -> E {
    E::custom(format_args!(
        "{number} is the number of no user and no group\nwrite a name such as \"www-data\", or a number from 0 to {}",
        NONE - 1
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_name_or_a_number_that_the_kernel_can_take() {
        let account = |text: &str| {
            let table: Result<toml::Table, _> = toml::from_str(&format!("user = {text}"));
            let account = Account::deserialize(table.expect("TOML")["user"].clone());
            account.map(|account| account.0).ok()
        };
        let some = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(account("\"www-data\""), some("www-data"));
        assert_eq!(account("\"65532\""), some("65532"));
        assert_eq!(account("65532"), some("65532"));
        assert_eq!(account("4294967294"), some("4294967294"));
        assert_eq!(account("0"), some("0"));
        assert_eq!(account("\"\""), Some(None));
        for wrong in ["4294967295", "\"4294967295\"", "-1", "99999999999", "1.5", "true", "[]"] {
            assert_eq!(account(wrong), None, "{wrong}");
        }
    }
}
