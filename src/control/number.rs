//! Numbers by which the supervisor and its workers know each other. Each counts from 1 and is never used twice.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> $name {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A worker, of all that a supervisor ever started.
    WorkerNumber
}
number! {
    /// A worker process, of all that a supervisor ever started. The kernel may give its pid to another process later;
    /// nothing else gets this number.
    ProcessNumber
}
number! {
    /// A generation of workers.
    GenerationNumber
}

impl GenerationNumber {
    /// The number of the first one.
    pub const FIRST: GenerationNumber = GenerationNumber(1);
}
