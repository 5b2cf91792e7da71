//! A slab with generations: a key of something that is gone finds nothing, even when its place was reused.

/// Values by key, in one block of memory.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Keys that one place has had are told apart by so many bits; then they come again.
const GENERATION_BITS: u32 = 28;

/// Where a value is, and which of the values that were ever there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// The place; lower than the most values that were ever there at once.
    pub(super) index: u32,
    generation: u32,
}

impl Key {
    /// As the token of an event: 60 bits.
    pub(super) fn to_token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// The key that `token` was made from.
    pub(super) fn from_token(token: u64) -> Key {
        Key { index: token as u32, generation: (token >> 32) as u32 }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a value into a free place.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        let index = self.places.len() as u32;
        self.places.push(Place { generation: 0, value: Some(value) });
        Key { index, generation: 0 }
    }

    /// The value of `key`, if it is still there.
    pub(super) fn find(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation == key.generation { place.value.as_mut() } else { None }
    }

    /// Takes out the value of `key`, if it is still there.
    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.index as usize)?;
        if place.generation != key.generation {
            return None;
        }
        let value = place.value.take()?;
        place.generation = (place.generation + 1) % (1 << GENERATION_BITS);
        self.free.push(key.index);
        Some(value)
    }

    /// The key of what is at `index` now.
    pub(super) fn key_at(&self, index: u32) -> Option<Key> {
        let place = self.places.get(index as usize)?;
        place.value.as_ref().map(|_| Key { index, generation: place.generation })
    }

    /// The keys of all values, in no particular order.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.places.len() as u32).filter_map(|index| self.key_at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_what_is_gone_finds_nothing_in_its_reused_place() {
        let mut slab = Slab::default();
        let old = slab.insert("old");
        assert_eq!(slab.remove(old), Some("old"));
        let new = slab.insert("new");
        assert_eq!(new.index, old.index);
        assert_eq!(slab.find(old), None);
        assert_eq!(slab.remove(old), None);
        assert_eq!(slab.find(Key::from_token(new.to_token())), Some(&mut "new"));
        assert_eq!(slab.len(), 1);
    }
    #[test]
    fn as_many_are_there_as_were_put_in_and_not_taken_out() {
        let mut slab = Slab::default();
        let keys = [slab.insert('a'), slab.insert('b'), slab.insert('c')];
        assert_eq!(slab.remove(keys[1]), Some('b'));
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.keys().collect::<Vec<_>>(), [keys[0], keys[2]]);
        assert_eq!([slab.remove(keys[0]), slab.remove(keys[2])], [Some('a'), Some('c')]);
        assert!(slab.is_empty());
    }
}
