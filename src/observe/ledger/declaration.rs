//! The macro that makes of a list of fields what `block` offers: their cells, descriptions and sums. It knows how fields
//! are declared, and none of them.

/// Declares the fields of a block, by kind: `name: Unit, "name for metrics";`, after a line of help.
macro_rules! block {
    (
        counters { $(#[doc = $c_help:literal] $counter:ident: $c_unit:ident, $c_name:literal;)+ }
        gauges { $(#[doc = $g_help:literal] $gauge:ident: $g_unit:ident, $g_name:literal;)+ }
        states { $(#[doc = $s_help:literal] $state:ident: $s_unit:ident, $s_name:literal;)+ }
    ) => {
        /// Every field of a block, in its order.
        pub const FIELDS: [Field; [$($c_name,)+ $($g_name,)+ $($s_name),+].len()] = [
            $(block!(@field Counter, $c_help, $c_unit, $c_name),)+
            $(block!(@field Gauge, $g_help, $g_unit, $g_name),)+
            $(block!(@field State, $s_help, $s_unit, $s_name),)+
        ];

        /// The fields of one worker's block.
        #[derive(Clone, Copy)]
        pub struct Cells<'l> {
            $(#[doc = $c_help] pub $counter: Counter<'l>,)+
            $(#[doc = $g_help] pub $gauge: Gauge<'l>,)+
            $(#[doc = $s_help] pub $state: State<'l>,)+
        }

        impl<'l> Cells<'l> {
            /// Those of this block.
            #[inline]
            pub(super) fn of(block: &'l [AtomicU64; FIELDS.len()]) -> Cells<'l> {
                let [$($counter,)+ $($gauge,)+ $($state),+] = block;
                Cells {
                    $($counter: Counter($counter),)+
                    $($gauge: Gauge($gauge),)+
                    $($state: State($state),)+
                }
            }

            /// What this worker has counted since it started.
            pub fn counts(self) -> Counts {
                Counts { $($counter: self.$counter.get()),+ }
            }

            /// What this worker has now.
            pub fn levels(self) -> Levels {
                Levels { $($gauge: self.$gauge.get()),+ }
            }
        }

        block!(@sum
            /// Counters, summed over blocks. By these names one supervisor tells the next: one that it doesn't know is
            /// left out, and one that it isn't told of is 0.
            Counts { $($c_help $counter),+ });
        block!(@sum
            /// Gauges, summed over blocks.
            Levels { $($g_help $gauge),+ });

        impl Counts {
            /// Of two accounts of the same the later one, whichever came first: counts only grow.
            pub fn latest(self, other: Counts) -> Counts {
                Counts { $($counter: self.$counter.max(other.$counter)),+ }
            }
        }
    };
    (@field $kind:ident, $help:literal, $unit:ident, $name:literal) => {
        Field { name: $name, help: $help.trim_ascii(), kind: Kind::$kind, unit: Unit::$unit }
    };
    (@sum $(#[$doc:meta])+ $sum:ident { $($help:literal $field:ident),+ }) => {
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $sum {
            $(#[doc = $help] pub $field: u64),+
        }

        impl Add for $sum {
            type Output = $sum;

            fn add(self, other: $sum) -> $sum {
                $sum { $($field: self.$field + other.$field),+ }
            }
        }

        impl Sum for $sum {
            fn sum<I: Iterator<Item = $sum>>(sums: I) -> $sum {
                sums.fold($sum::default(), Add::add)
            }
        }
    };
}
