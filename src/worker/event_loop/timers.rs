//! Deadlines of connections: one each, kept in a hierarchical timing wheel.
//!
//! Arming, re-arming and expiry cost O(1). A deadline that moves away, as a keep-alive deadline does with
//! every request, costs one store: its entry stays where it is and is moved on only when its slot comes up.
//! A slot of level n is 64ⁿ milliseconds wide; six levels reach two years.

const LEVELS: usize = 6;
const SLOTS: usize = 64;
const SLOT_BITS: u32 = 6;
const NIL: u32 = u32::MAX;
/// The lists: all slots of all levels, and behind them the entries that have expired.
const DUE: u16 = (LEVELS * SLOTS) as u16;
const UNLINKED: u16 = u16::MAX;

/// The deadlines, by connection index. Time is in milliseconds since any fixed point.
pub struct Timers {
    /// Everything up to here has been expired.
    now_ms: u64,
    heads: [u32; LEVELS * SLOTS + 1],
    /// A bit per slot that holds an entry.
    occupied: [u64; LEVELS],
    entries: Vec<Entry>,
}

struct Entry {
    deadline_ms: u64,
    /// When its slot comes up: at the deadline or before it.
    slot_ms: u64,
    next: u32,
    previous: u32,
    list: u16,
}

impl Default for Timers {
    fn default() -> Timers {
        Timers {
            now_ms: 0,
            heads: [NIL; LEVELS * SLOTS + 1],
            occupied: [0; LEVELS],
            entries: Vec::new(),
        }
    }
}

impl Timers {
    /// Sets the deadline of `index`, in place of the one it may have.
    pub fn arm(&mut self, index: u32, deadline_ms: u64) {
        let at = index as usize;
        if at >= self.entries.len() {
            self.entries.resize_with(at + 1, Entry::unlinked);
        }
        let entry = &mut self.entries[at];
        entry.deadline_ms = deadline_ms;
        if entry.list < DUE && entry.slot_ms <= deadline_ms {
            return;
        }
        self.unlink(index);
        self.link(index);
    }

    /// Forgets the deadline of `index`, if it has one.
    pub fn disarm(&mut self, index: u32) {
        if (index as usize) < self.entries.len() {
            self.unlink(index);
        }
    }

    /// The deadline of `index`, if it has one.
    pub fn deadline_ms(&self, index: u32) -> Option<u64> {
        let entry = self.entries.get(index as usize).filter(|entry| entry.list != UNLINKED);
        entry.map(|entry| entry.deadline_ms)
    }

    /// When to ask for expired entries again, at the latest: the first deadline, or an earlier moment at which an entry
    /// has to be moved.
    pub fn next_ms(&self) -> Option<u64> {
        if self.heads[DUE as usize] != NIL {
            return Some(self.now_ms);
        }
        self.next_slot().map(|(_, slot_ms)| slot_ms)
    }

    /// Takes one index whose deadline is at or before `now_ms`. It is disarmed.
    pub fn expire(&mut self, now_ms: u64) -> Option<u32> {
        loop {
            let due = self.heads[DUE as usize];
            if due != NIL {
                self.unlink(due);
                return Some(due);
            }
            match self.next_slot() {
                Some((list, slot_ms)) if slot_ms <= now_ms => {
                    self.now_ms = self.now_ms.max(slot_ms);
                    self.empty(list);
                }
                _ => {
                    self.now_ms = self.now_ms.max(now_ms);
                    return None;
                }
            }
        }
    }

    /// Moves every entry of a slot that has come up to where it belongs now.
    fn empty(&mut self, list: u16) {
        while self.heads[list as usize] != NIL {
            let index = self.heads[list as usize];
            self.unlink(index);
            self.link(index);
        }
    }

    /// The occupied slot that comes up first. Lower levels always come before higher ones.
    fn next_slot(&self) -> Option<(u16, u64)> {
        let level = self.occupied.iter().position(|slots| *slots != 0)?;
        let shift = level as u32 * SLOT_BITS;
        let current = self.now_ms >> shift;
        // A rotation counts modulo 64, as a level counts its slots.
        let ahead = self.occupied[level].rotate_right(current as u32).trailing_zeros();
        let slot = current + u64::from(ahead);
        Some(((level * SLOTS) as u16 + (slot % SLOTS as u64) as u16, slot << shift))
    }

    /// Puts an unlinked entry into the list that its deadline belongs to.
    fn link(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let list = if entry.deadline_ms <= self.now_ms {
            DUE
        } else {
            // The highest digit, to the base of 64, in which the deadline differs from now.
            let differing = 63 - (entry.deadline_ms ^ self.now_ms).leading_zeros();
            let level = ((differing / SLOT_BITS) as usize).min(LEVELS - 1);
            let shift = level as u32 * SLOT_BITS;
            // Beyond the last level's reach, the farthest slot holds it until it is looked at again.
            let farthest = (self.now_ms >> shift) + SLOTS as u64 - 1;
            let slot = (entry.deadline_ms >> shift).min(farthest);
            entry.slot_ms = slot << shift;
            let slot = (slot % SLOTS as u64) as usize;
            self.occupied[level] |= 1 << slot;
            (level * SLOTS + slot) as u16
        };
        let head = self.heads[list as usize];
        entry.list = list;
        entry.previous = NIL;
        entry.next = head;
        if head != NIL {
            self.entries[head as usize].previous = index;
        }
        self.heads[list as usize] = index;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { next, previous, list, .. } = self.entries[index as usize];
        if list == UNLINKED {
            return;
        }
        self.entries[index as usize].list = UNLINKED;
        if next != NIL {
            self.entries[next as usize].previous = previous;
        }
        if previous != NIL {
            self.entries[previous as usize].next = next;
            return;
        }
        self.heads[list as usize] = next;
        if next == NIL && list < DUE {
            self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
        }
    }
}

impl Entry {
    fn unlinked() -> Entry {
        Entry { deadline_ms: 0, slot_ms: 0, next: NIL, previous: NIL, list: UNLINKED }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn expired(timers: &mut Timers, now_ms: u64) -> Vec<u32> {
        let mut indexes: Vec<_> = std::iter::from_fn(|| timers.expire(now_ms)).collect();
        indexes.sort_unstable();
        indexes
    }

    #[test]
    fn a_deadline_expires_in_its_millisecond_and_not_before() {
        for deadline in [1, 63, 64, 65, 4_095, 4_096, 75_000, 262_144, 1 << 40] {
            for start in [0, 1, 63, 4_000, 100_000] {
                let mut timers = Timers::default();
                timers.expire(start);
                timers.arm(0, start + deadline);
                assert_eq!(timers.expire(start + deadline - 1), None, "{start} + {deadline}");
                assert!(timers.next_ms().is_some_and(|next| next <= start + deadline));
                assert_eq!(timers.expire(start + deadline), Some(0), "{start} + {deadline}");
                assert_eq!(timers.next_ms(), None);
            }
        }
    }

    #[test]
    fn a_deadline_that_moved_away_does_not_expire_early_and_one_that_moved_near_expires_early() {
        let mut timers = Timers::default();
        timers.arm(0, 100);
        timers.arm(0, 5_000);
        timers.arm(1, 5_000);
        timers.arm(1, 100);
        assert_eq!(expired(&mut timers, 4_999), [1]);
        assert_eq!(expired(&mut timers, 5_000), [0]);
    }

    #[test]
    fn random_arming_and_disarming_agrees_with_a_sorted_map() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = move |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut timers = Timers::default();
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let mut now = 0;
        for _ in 0..100_000 {
            let index = next(64) as u32;
            match next(4) {
                0 => {
                    timers.disarm(index);
                    model.remove(&index);
                }
                1 => {
                    let reach = [2, 64, 5_000, 300_000][next(4) as usize];
                    now += next(reach);
                    let due: Vec<u32> = model
                        .iter()
                        .filter(|(_, at)| **at <= now)
                        .map(|(index, _)| *index)
                        .collect();
                    model.retain(|_, at| *at > now);
                    assert_eq!(expired(&mut timers, now), due);
                    let first = model.values().min().copied();
                    assert_eq!(timers.next_ms().is_some(), first.is_some());
                    assert!(timers.next_ms() <= first);
                }
                _ => {
                    let reach = [2, 64, 5_000, 300_000][next(4) as usize];
                    let deadline = now + next(reach);
                    timers.arm(index, deadline);
                    model.insert(index, deadline);
                }
            }
        }
    }
}
