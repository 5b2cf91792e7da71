//! Sums of what workers have counted, and how one supervisor tells the next: by the names of fields and labels, so that two
//! versions understand each other as far as both know a name.

use std::array;
use std::collections::BTreeMap;
use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::block::{CELLS, Counts, Field, GROWING, growing};
use super::labels::{cells, values_of};

impl Counts {
    /// Those of a block.
    pub(super) fn of(block: &[AtomicU64; CELLS]) -> Counts {
        Counts(array::from_fn(|cell| block[cell].load(Ordering::Acquire)))
    }

    /// The most that there can be.
    #[cfg(test)]
    pub fn most() -> Counts {
        Counts([u64::MAX; GROWING])
    }

    /// Of two accounts of the same the later one, whichever came first: counts only grow.
    pub fn latest(self, other: Counts) -> Counts {
        Counts(array::from_fn(|cell| self.0[cell].max(other.0[cell])))
    }

    /// The counts of the cells of a field; none if it isn't one that only grows.
    pub fn of_field(&self, field: &Field) -> &[u64] {
        let found = self.fields().find(|(of, _)| of.key == field.key);
        found.map_or(&[], |(_, counts)| counts)
    }

    /// The fields, each with the counts of its cells.
    pub fn fields(&self) -> impl Iterator<Item = (&'static Field, &[u64])> {
        growing().map(|(field, start)| (field, &self.0[start..start + cells(field.dimensions)]))
    }
}

impl Default for Counts {
    fn default() -> Counts {
        Counts([0; GROWING])
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts(array::from_fn(|cell| self.0[cell].saturating_add(other.0[cell])))
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(counts: I) -> Counts {
        counts.fold(Counts::default(), Add::add)
    }
}

/// By the keys of the fields; where a field has labels, by their values, without the cells that are 0.
impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (field, counts) in self.fields() {
            match (field.dimensions, counts) {
                ([], counts) => map.serialize_entry(field.key, &counts[0])?,
                (_, counts) => map.serialize_entry(field.key, &named(field, counts))?,
            }
        }
        map.end()
    }
}

fn named(field: &Field, counts: &[u64]) -> BTreeMap<String, u64> {
    let counts = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    counts.map(|(cell, count)| (name_of(field, cell), *count)).collect()
}

/// The name of a cell among those of its field.
fn name_of(field: &Field, cell: usize) -> String {
    values_of(field.dimensions, cell).join(" ")
}

/// What has a name that isn't known is left out, and what isn't named is 0.
impl<'de> Deserialize<'de> for Counts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Counts, D::Error> {
        deserializer.deserialize_map(ByName)
    }
}

struct ByName;

impl<'de> Visitor<'de> for ByName {
    type Value = Counts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counts by their names")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counts, A::Error> {
        let mut counts = Counts::default();
        while let Some(key) = map.next_key::<String>()? {
            let Some((field, start)) = growing().find(|(field, _)| field.key == key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if field.dimensions.is_empty() {
                counts.0[start] = map.next_value()?;
                continue;
            }
            let named: BTreeMap<String, u64> = map.next_value()?;
            for cell in 0..cells(field.dimensions) {
                counts.0[start + cell] = named.get(&name_of(field, cell)).copied().unwrap_or(0);
            }
        }
        Ok(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ledger;
    use super::super::labels::{Answered, Class, DurationPart, Method, TimedOut};
    use super::*;

    fn counts() -> Counts {
        let ledger = Ledger::new(1).expect("a ledger");
        let cells = ledger.block(0).cells();
        cells.accepted.add(1);
        cells.answered.at(Answered(Method::Get, Class::Successful)).add(2);
        cells.answered.at(Answered(Method::Other, Class::ServerError)).add(3);
        cells.timed_out.at(TimedOut::Write).add(4);
        cells.durations.at(DurationPart::Bucket(60)).add(5);
        cells.durations.at(DurationPart::Sum).add(300);
        ledger.block(0).counts()
    }

    #[test]
    fn counts_are_told_by_the_names_of_fields_and_labels() {
        let told = serde_json::to_value(counts()).expect("JSON");
        assert_eq!(told["accepted"], 1);
        assert_eq!(told["requests"], 0);
        assert_eq!(told["answered"], serde_json::json!({"GET 2xx": 2, "_OTHER 5xx": 3}));
        assert_eq!(told["timed_out"], serde_json::json!({"write": 4}));
        assert_eq!(told["durations"], serde_json::json!({"0.0001": 5, "sum": 300}));
        let heard: Counts = serde_json::from_value(told).expect("counts");
        assert_eq!(heard, counts());
    }

    #[test]
    fn what_another_version_counts_is_taken_by_the_names_that_both_know() {
        let text =
            r#"{"requests":7,"bytes":[1],"answered":{"GET 2xx":2,"GET 6xx":9},"unknown":{"a":1}}"#;
        let heard: Counts = serde_json::from_str(text).expect("counts");
        let get = |class| heard.answered(Answered(Method::Get, class));
        assert_eq!((heard.requests(), heard.accepted()), (7, 0));
        assert_eq!((get(Class::Successful), get(Class::ServerError)), (2, 0));
        assert_eq!(heard.fields().map(|(_, counts)| counts.iter().sum::<u64>()).sum::<u64>(), 9);
    }

    #[test]
    fn sums_and_later_accounts_are_made_cell_by_cell() {
        let (one, two) = (counts(), counts() + counts());
        assert_eq!(two.timed_out(TimedOut::Write), 8);
        assert_eq!(two.timed_out(TimedOut::Header), 0);
        assert_eq!((one.latest(two), two.latest(one)), (two, two));
        assert_eq!([one, two].into_iter().sum::<Counts>(), one + two);
    }
}
