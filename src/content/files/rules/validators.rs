//! Validators (RFC 9110 §8.8): the tag and the date of a file, and what of them can be relied on.

use std::time::Duration;

use super::variants::Coding;

/// What the file system says of the file that is sent, which is that of the coding if it is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Bytes.
    pub size: u64,
    /// When it was last modified, in seconds since the epoch, rounded down.
    pub modified_s: i64,
    /// And the nanoseconds of that second.
    pub modified_ns: u32,
}

/// An entity tag, as it stands in a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntityTag(Box<str>);

/// What a client can ask by whether it has the present form of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Validators {
    pub(super) tag: Option<EntityTag>,
    /// In seconds since the epoch.
    pub(super) modified_s: Option<u64>,
    /// Whether another change within the second of `modified_s` can't come any more (RFC 9110 §8.8.2.2).
    pub(super) is_date_strong: bool,
}

/// Within so much time after a change another one may get the same time: the kernel takes it from a clock that is set
/// once in a tick, of 10 ms at most, and this is twice as long.
const GRAIN: Duration = Duration::from_millis(20);
/// The same where a file system keeps whole seconds, or every other (FAT).
const GRAIN_OF_SECONDS: Duration = Duration::from_secs(2);
/// Times up to this one are set, not taken from a clock, by what makes images and packages reproducible.
const SET_TIME_MAX_S: i64 = 1;
/// The last second that a date can state: its year has four digits (RFC 9110 §5.6.7).
const DATE_MAX_S: i64 = 253_402_300_799;

impl Metadata {
    /// Whether its time says nothing about its content: 0 and 1, which every file of an image made reproducible has, and
    /// what can't be stated.
    pub fn has_set_time(&self) -> bool {
        !(SET_TIME_MAX_S + 1..=DATE_MAX_S).contains(&self.modified_s)
    }
}

/// A hash of content for its tag, the same for every process and version of this server.
pub fn content_hash(content: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(content)
}

impl Validators {
    /// Of a file that was looked at when `now` had passed since the epoch.
    pub(super) fn new(
        metadata: &Metadata,
        coding: Option<Coding>,
        content_hash: Option<u64>,
        now: Duration,
    ) -> Validators {
        if metadata.has_set_time() {
            let tag = content_hash.map(|hash| EntityTag::of_content(hash, metadata.size, coding));
            return Validators { tag, modified_s: None, is_date_strong: false };
        }
        // What has a set time is negative or beyond all dates, so this is none of both.
        let modified_s = metadata.modified_s.unsigned_abs();
        let modified = Duration::new(modified_s, metadata.modified_ns);
        let grain = if metadata.modified_ns == 0 { GRAIN_OF_SECONDS } else { GRAIN };
        // A time to come is no later change's either, as long as the clocks differ.
        let is_strong = now >= modified + grain;
        Validators {
            tag: Some(EntityTag::of_time(metadata, coding, is_strong)),
            // A date must not be later than that of the response (RFC 9110 §8.8.2.1).
            modified_s: Some(modified_s.min(now.as_secs())),
            is_date_strong: now.as_secs() > modified_s,
        }
    }
}

impl EntityTag {
    /// A weak one is not equal to any strong one even by weak comparison: what it stood for may have changed since, in the
    /// same tick.
    fn of_time(metadata: &Metadata, coding: Option<Coding>, is_strong: bool) -> EntityTag {
        let Metadata { size, modified_s, modified_ns } = metadata;
        let text = format!("{modified_s:x}.{modified_ns:x}-{size:x}");
        let (before, after) = if is_strong { ("", "") } else { ("W/", "-fresh") };
        EntityTag(format!("{before}\"{text}{}{after}\"", of_coding(coding)).into())
    }

    fn of_content(hash: u64, size: u64, coding: Option<Coding>) -> EntityTag {
        EntityTag(format!("\"h{hash:016x}-{size:x}{}\"", of_coding(coding)).into())
    }

    /// As it stands in a field.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// What is within the quotes, with them.
    pub(super) fn opaque(&self) -> &[u8] {
        self.0.strip_prefix("W/").unwrap_or(&self.0).as_bytes()
    }

    pub(super) fn is_weak(&self) -> bool {
        self.0.starts_with('W')
    }
}

/// Each coding is a form of the file with a tag of its own (RFC 9110 §8.8.3.3).
fn of_coding(coding: Option<Coding>) -> &'static str {
    match coding {
        None => "",
        Some(Coding::Zstd) => "-zstd",
        Some(Coding::Br) => "-br",
        Some(Coding::Gzip) => "-gzip",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Metadata = Metadata { size: 4096, modified_s: 0x6583_0000, modified_ns: 500 };
    const LATER: Duration = Duration::from_secs(0x6583_0000 + 60);

    fn tag(metadata: Metadata, coding: Option<Coding>, hash: Option<u64>) -> Option<String> {
        let validators = Validators::new(&metadata, coding, hash, LATER);
        validators.tag.map(|tag| tag.text().to_owned())
    }

    #[test]
    fn a_tag_is_made_of_time_size_and_coding() {
        assert_eq!(tag(FILE, None, None).as_deref(), Some("\"65830000.1f4-1000\""));
        let coded = tag(FILE, Some(Coding::Br), Some(7));
        assert_eq!(coded.as_deref(), Some("\"65830000.1f4-1000-br\""));
        // No two of these are written alike.
        let others = [
            (FILE, Some(Coding::Gzip)),
            (FILE, Some(Coding::Zstd)),
            (Metadata { size: 4097, ..FILE }, None),
            (Metadata { modified_ns: 0x1f, size: 0x41000, ..FILE }, None),
            (Metadata { modified_s: 0x658_3000, ..FILE }, None),
        ];
        let mut tags: Vec<_> =
            others.into_iter().map(|(metadata, coding)| tag(metadata, coding, None)).collect();
        tags.extend([tag(FILE, None, None), coded]);
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 7, "{tags:?}");
    }

    #[test]
    fn a_time_that_was_set_makes_neither_a_date_nor_a_tag() {
        for modified_s in [0, 1, -1, i64::MIN, DATE_MAX_S + 1, i64::MAX] {
            let metadata = Metadata { modified_s, ..FILE };
            let validators = Validators::new(&metadata, None, None, LATER);
            assert_eq!((validators.tag, validators.modified_s), (None, None), "{modified_s}");
            let hash = content_hash(b"content");
            let of_content = format!("\"h{hash:016x}-1000\"");
            assert_eq!(tag(metadata, None, Some(hash)), Some(of_content), "{modified_s}");
        }
        for modified_s in [2, DATE_MAX_S] {
            let metadata = Metadata { modified_s, ..FILE };
            assert!(Validators::new(&metadata, None, None, LATER).modified_s.is_some());
        }
        assert_ne!(content_hash(b"content"), content_hash(b"contenu"));
        assert_eq!(content_hash(b""), 0x2d06_8005_38d3_94c2, "as of XXH3's own tests");
    }

    #[test]
    fn validators_are_weak_until_a_change_would_show() {
        let second = Duration::from_secs(0x6583_0000);
        let of = |modified_ns, now| {
            let metadata = Metadata { modified_ns, ..FILE };
            let validators = Validators::new(&metadata, None, None, now);
            let tag = validators.tag.expect("a tag");
            (!tag.is_weak(), validators.is_date_strong)
        };
        let at = |nanoseconds| second + Duration::from_nanos(nanoseconds);
        assert_eq!(of(500, at(500)), (false, false));
        assert_eq!(of(500, at(500 + 19_999_999)), (false, false));
        assert_eq!(of(500, at(500 + 20_000_000)), (true, false));
        assert_eq!(of(500, at(1_000_000_000)), (true, true));
        // A file system that keeps whole seconds.
        assert_eq!(of(0, at(1_999_999_999)), (false, true));
        assert_eq!(of(0, at(2_000_000_000)), (true, true));
        // A time to come.
        assert_eq!(of(500, Duration::from_secs(9)), (false, false));
    }

    #[test]
    fn a_date_is_never_later_than_now_and_a_weak_tag_equals_no_strong_one() {
        let now = Duration::from_secs(0x6583_0000 - 5);
        let early = Validators::new(&FILE, None, None, now);
        assert_eq!(early.modified_s, Some(now.as_secs()));
        let late = Validators::new(&FILE, None, None, LATER);
        assert_eq!(late.modified_s, Some(0x6583_0000));
        let [early, late] = [early, late].map(|validators| validators.tag.expect("a tag"));
        assert!(early.text().starts_with("W/\"") && late.text().starts_with('"'));
        assert_ne!(early.opaque(), late.opaque());
    }
}
