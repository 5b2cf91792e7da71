//! A slab with generations: a key of something that is gone finds nothing, even when its place was reused.

use crate::worker::driver::token::{GENERATIONS, Key, PLACES};

/// Values by key, in one block of memory.
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
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
    ///
    /// # Panics
    /// If there are [`PLACES`] values: no key tells more apart. Descriptors run out long before.
    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(index) = self.free.pop() {
            let place = &mut self.places[index as usize];
            place.value = Some(value);
            return Key { index, generation: place.generation };
        }
        assert!(self.places.len() < PLACES as usize, "a place has no key");
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
        place.generation = (place.generation + 1) % GENERATIONS;
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
        assert_eq!(slab.find(new), Some(&mut "new"));
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

    #[test]
    fn however_often_a_place_is_reused_its_keys_fit_into_tokens() {
        let mut slab = Slab::default();
        slab.insert(());
        slab.places[0].generation = GENERATIONS - 2;
        for generation in [GENERATIONS - 2, GENERATIONS - 1, 0, 1] {
            let key = Key { index: 0, generation };
            assert_eq!(slab.remove(key), Some(()), "{generation}");
            slab.insert(());
        }
    }
}
