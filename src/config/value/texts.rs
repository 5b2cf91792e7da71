//! Lists of texts, and texts by pattern, as people write them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// One text or a list of them, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(in crate::config) struct Texts(pub(in crate::config) Vec<String>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Texts;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text in quotes, or a list of such")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// One text for everything, or a table of patterns with a text for each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text in quotes, or a table of patterns with a text for each")]
pub(in crate::config) enum ByPattern {
    /// For everything.
    All(String),
    /// For what each pattern matches.
    Each(BTreeMap<String, String>),
}

impl ByPattern {
    /// Patterns with their texts, the longer pattern before the shorter.
    pub(in crate::config) fn in_order(&self) -> Vec<(String, String)> {
        match self {
            ByPattern::All(text) => vec![("*".to_owned(), text.clone())],
            ByPattern::Each(table) => {
                let mut texts: Vec<_> =
                    table.iter().map(|(pattern, text)| (pattern.clone(), text.clone())).collect();
                texts.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.len()));
                texts
            }
        }
    }
}
