//! The macro that makes of a list of fields what `block` offers: their cells, descriptions and sums. It knows how fields
//! are declared, and none of them.

/// Declares the fields of a block, by kind: `name: Unit, "name for metrics";`, after a line of help. A field with
/// `, by Label` has a cell for each value of that label.
macro_rules! block {
    (
        counters {
            $(#[doc = $c_help:literal] $counter:ident: $c_unit:ident, $c_name:literal $(, by $c_label:ident)?;)+
        }
        histograms {
            $(#[doc = $h_help:literal] $histogram:ident: $h_unit:ident, $h_name:literal, by $h_label:ident;)+
        }
        gauges { $(#[doc = $g_help:literal] $gauge:ident: $g_unit:ident, $g_name:literal;)+ }
        states { $(#[doc = $s_help:literal] $state:ident: $s_unit:ident, $s_name:literal;)+ }
    ) => {
        /// Every field of a block, in its order.
        pub const FIELDS: [Field; [$($c_name,)+ $($h_name,)+ $($g_name,)+ $($s_name),+].len()] = [
            $(block!(@field Counter, $counter, $c_help, $c_unit, $c_name $(, $c_label)?),)+
            $(block!(@field Histogram, $histogram, $h_help, $h_unit, $h_name, $h_label),)+
            $(block!(@field Gauge, $gauge, $g_help, $g_unit, $g_name),)+
            $(block!(@field State, $state, $s_help, $s_unit, $s_name),)+
        ];

        /// The fields as numbers: their places in [`FIELDS`].
        #[allow(non_camel_case_types, reason = "these are the names of the fields")]
        enum Place { $($counter,)+ $($histogram,)+ $($gauge,)+ $($state,)+ }

        /// The fields of one worker's block.
        #[derive(Clone, Copy)]
        pub struct Cells<'l> {
            $(#[doc = $c_help] pub $counter: block!(@type 'l $(, $c_label)?),)+
            $(#[doc = $h_help] pub $histogram: Family<'l, $h_label>,)+
            $(#[doc = $g_help] pub $gauge: Gauge<'l>,)+
            $(#[doc = $s_help] pub $state: State<'l>,)+
        }

        impl<'l> Cells<'l> {
            /// Those of this block.
            #[inline]
            pub(super) fn of(block: &'l [AtomicU64; CELLS]) -> Cells<'l> {
                Cells {
                    $($counter: block!(@cells block, $counter $(, $c_label)?),)+
                    $($histogram: block!(@cells block, $histogram, $h_label),)+
                    $($gauge: Gauge(&block[START[Place::$gauge as usize]]),)+
                    $($state: State(&block[START[Place::$state as usize]]),)+
                }
            }

            /// What this worker has now.
            pub fn levels(self) -> Levels {
                Levels { $($gauge: self.$gauge.get()),+ }
            }
        }

        #[allow(dead_code, reason = "a field is there whether its sum is asked for by name or not")]
        impl Counts {
            $(block!(@sum $c_help, $counter $(, $c_label)?);)+
            $(block!(@sum $h_help, $histogram, $h_label);)+
        }

        /// Gauges, summed over blocks.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Levels {
            $(#[doc = $g_help] pub $gauge: u64),+
        }

        impl Sum for Levels {
            fn sum<I: Iterator<Item = Levels>>(levels: I) -> Levels {
                levels.fold(Levels::default(), |sum, of| Levels { $($gauge: sum.$gauge + of.$gauge),+ })
            }
        }
    };
    (@field $kind:ident, $key:ident, $help:literal, $unit:ident, $name:literal $(, $label:ident)?) => {
        Field {
            key: stringify!($key),
            name: $name,
            help: $help.trim_ascii(),
            kind: Kind::$kind,
            unit: Unit::$unit,
            dimensions: block!(@dimensions $($label)?),
        }
    };
    (@dimensions) => { &[] };
    (@dimensions $label:ident) => { <$label as Label>::DIMENSIONS };
    (@type $life:lifetime) => { Counter<$life> };
    (@type $life:lifetime, $label:ident) => { Family<$life, $label> };
    (@cells $block:ident, $field:ident) => { Counter(&$block[START[Place::$field as usize]]) };
    (@cells $block:ident, $field:ident, $label:ident) => {{
        const FROM: usize = START[Place::$field as usize];
        const COUNT: usize = cells(<$label as Label>::DIMENSIONS);
        Family(&$block[FROM..FROM + COUNT], PhantomData)
    }};
    (@sum $help:literal, $field:ident) => {
        #[doc = $help]
        pub fn $field(&self) -> u64 {
            self.0[START[Place::$field as usize]]
        }
    };
    (@sum $help:literal, $field:ident, $label:ident) => {
        #[doc = $help]
        pub fn $field(&self, label: $label) -> u64 {
            self.0[START[Place::$field as usize] + label.cell()]
        }
    };
}
