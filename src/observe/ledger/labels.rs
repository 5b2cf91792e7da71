//! What the cells of a field are told apart by, where it has several: a name, and all values that there can be. No label has
//! values without bound: what a client sends is never one.

/// One label, and the values that it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Its name.
    pub name: &'static str,
    /// All its values, in the order of the cells.
    pub values: &'static [&'static str],
}

/// What picks a cell of a field.
pub trait Label: Copy {
    /// The labels of each cell. The values of the last one change fastest from cell to cell.
    const DIMENSIONS: &'static [Dimension];

    /// The number of its cell.
    fn cell(self) -> usize;
}

/// Declares an enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $label:ident: $name:literal { $($(#[$value_doc:meta])+ $variant:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $label {
            $($(#[$value_doc])+ $variant,)+
        }

        impl $label {
            /// The label.
            pub const DIMENSION: Dimension = Dimension { name: $name, values: &[$($value),+] };
        }

        impl Label for $label {
            const DIMENSIONS: &'static [Dimension] = &[$label::DIMENSION];

            fn cell(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// The method of a request.
    Method: "method" {
        /// GET
        Get = "GET",
        /// HEAD
        Head = "HEAD",
        /// POST
        Post = "POST",
        /// PUT
        Put = "PUT",
        /// PATCH
        Patch = "PATCH",
        /// DELETE
        Delete = "DELETE",
        /// OPTIONS
        Options = "OPTIONS",
        /// Any other, or one that is not known because the request was refused before its head was whole.
        Other = "_OTHER",
    }
}

label! {
    /// The class of a final status (RFC 9110 §15).
    Class: "status" {
        /// 200 to 299
        Successful = "2xx",
        /// 300 to 399
        Redirection = "3xx",
        /// 400 to 499
        ClientError = "4xx",
        /// 500 and above
        ServerError = "5xx",
    }
}

/// A request that was answered: by which method, and with which class of status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered(pub Method, pub Class);

label! {
    /// Why a request was refused.
    RefusedFor: "reason" {
        /// 400
        BadRequest = "bad_request",
        /// 408
        Timeout = "timeout",
        /// 413
        BodyTooLarge = "body_too_large",
        /// 414
        RequestLineTooLong = "request_line_too_long",
        /// 417
        Expectation = "expectation",
        /// 421
        Misdirected = "misdirected",
        /// 431
        FieldsTooLarge = "fields_too_large",
        /// 500, after a panic
        Panic = "panic",
        /// 501
        NotImplemented = "not_implemented",
        /// 503
        Overloaded = "overloaded",
        /// 505
        Version = "version",
    }
}

label! {
    /// Why a connection was closed although its client did nothing wrong.
    RejectedFor: "reason" {
        /// The lane had as many connections as it may. The engine may alone: the other one leaves them in the queue.
        #[cfg_attr(not(feature = "may"), allow(dead_code, reason = "for that engine alone"))]
        Full = "full",
        /// The lane held as much memory for its connections as it may.
        Memory = "memory",
        /// The kernel had no memory to watch it with.
        Unwatched = "unwatched",
        /// It didn't come from a trusted proxy, where only those may say whose connection it is.
        Untrusted = "untrusted",
        /// What came first was no header of the PROXY protocol.
        ProxyHeader = "proxy_header",
    }
}

label! {
    /// What a client took longer for than it may: the keys of `[timeouts]`.
    TimedOut: "reason" {
        /// For a whole head.
        Header = "header",
        /// For a body, or the next piece of it.
        Body = "body",
        /// For its next request.
        KeepAlive = "keep_alive",
        /// For a piece of a response.
        Write = "write",
    }
}

label! {
    /// Why a worker was restarted.
    RestartCause: "cause" {
        /// Its process exited with a code.
        Exit = "exit",
        /// A signal ended its process.
        Signal = "signal",
        /// The kernel's out-of-memory killer ended its process.
        OutOfMemory = "out_of_memory",
        /// It panicked.
        Panic = "panic",
        /// It could not start, or something that it needs failed.
        Failure = "failure",
        /// Its loop did not turn within `supervisor.watchdog`.
        Hung = "hung",
        /// It was not ready within `supervisor.ready_timeout`.
        NotReady = "not_ready",
        /// Its process was sent a signal to end, and drained.
        ToldToEnd = "told_to_end",
        /// A supervisor before this one restarted it, and didn't tell why.
        Unknown = "unknown",
    }
}

/// A part of a histogram of durations: the count of one bucket, or the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationPart {
    /// The bucket of this many microseconds.
    Bucket(u64),
    /// All durations together, in microseconds.
    Sum,
}

/// The upper bounds of the buckets of durations, in microseconds; there is one more, without a bound.
pub const BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000,
];

impl Class {
    /// That of a status.
    #[inline]
    pub fn of(status: u16) -> Class {
        match status {
            ..300 => Class::Successful,
            300..400 => Class::Redirection,
            400..500 => Class::ClientError,
            500.. => Class::ServerError,
        }
    }
}

impl Label for Answered {
    const DIMENSIONS: &'static [Dimension] = &[Method::DIMENSION, Class::DIMENSION];

    #[inline]
    fn cell(self) -> usize {
        let Answered(method, class) = self;
        method.cell() * Class::DIMENSION.values.len() + class.cell()
    }
}

impl Label for DurationPart {
    const DIMENSIONS: &'static [Dimension] = &[Dimension {
        name: "le",
        values: &[
            "5e-05", "0.0001", "0.00025", "0.0005", "0.001", "0.0025", "0.005", "0.01", "0.025",
            "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf", "sum",
        ],
    }];

    #[inline]
    fn cell(self) -> usize {
        match self {
            DurationPart::Bucket(us) => BOUNDS_US.partition_point(|bound_us| *bound_us < us),
            DurationPart::Sum => BOUNDS_US.len() + 1,
        }
    }
}

/// How many cells a field with these labels has.
pub(super) const fn cells(dimensions: &[Dimension]) -> usize {
    let (mut cells, mut at) = (1, 0);
    while at < dimensions.len() {
        cells *= dimensions[at].values.len();
        at += 1;
    }
    cells
}

/// The values of the labels of a cell.
pub fn values_of(dimensions: &[Dimension], cell: usize) -> Vec<&'static str> {
    let mut left = cell;
    let mut values: Vec<&str> = dimensions
        .iter()
        .rev()
        .map(|Dimension { values, .. }| {
            let value = values[left % values.len()];
            left /= values.len();
            value
        })
        .collect();
    values.reverse();
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cells_of_two_labels_are_told_apart_by_both() {
        let cell = Answered(Method::Post, Class::ClientError).cell();
        assert_eq!(values_of(Answered::DIMENSIONS, cell), ["POST", "4xx"]);
        let last = Answered(Method::Other, Class::ServerError).cell();
        assert_eq!(last + 1, cells(Answered::DIMENSIONS));
        assert_eq!(values_of(Answered::DIMENSIONS, last), ["_OTHER", "5xx"]);
    }

    #[test]
    fn a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let values = |us| values_of(DurationPart::DIMENSIONS, DurationPart::Bucket(us).cell());
        for (us, le) in [
            (0, "5e-05"),
            (50, "5e-05"),
            (51, "0.0001"),
            (1_000_000, "1.0"),
            (10_000_000, "10.0"),
            (10_000_001, "+Inf"),
            (u64::MAX, "+Inf"),
        ] {
            assert_eq!(values(us), [le], "{us}");
        }
        assert_eq!(values_of(DurationPart::DIMENSIONS, DurationPart::Sum.cell()), ["sum"]);
    }

    #[test]
    fn a_bound_in_microseconds_is_the_one_that_is_written_in_seconds() {
        let written = &DurationPart::DIMENSIONS[0].values[..BOUNDS_US.len()];
        for (us, written) in BOUNDS_US.iter().zip(written) {
            let seconds: f64 = written.parse().expect("a number");
            assert_eq!((seconds * 1e6).round() as u64, *us);
        }
    }

    #[test]
    fn a_status_is_of_its_class() {
        for (status, class) in [
            (200, Class::Successful),
            (299, Class::Successful),
            (300, Class::Redirection),
            (399, Class::Redirection),
            (400, Class::ClientError),
            (499, Class::ClientError),
            (500, Class::ServerError),
            (599, Class::ServerError),
        ] {
            assert_eq!(Class::of(status), class, "{status}");
        }
    }
}
