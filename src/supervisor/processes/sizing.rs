//! How many lanes, on which CPUs, and why that many.
//!
//! `auto` is the number of CPUs that the affinity mask allows, limited by the cgroup's CPU quota, rounded
//! **up**: two lanes on a quota of 1.5 CPUs use all of it, where one lane would leave a third unused.
//! num_cpus rounds up too, but looks at this process's own group alone; std walks up v2's groups, but
//! rounds down and knows v1 only in part. The quota of every ancestor is therefore read here, and num_cpus
//! has a say in case it knows of a limit that this doesn't.

use serde::{Deserialize, Serialize};

use crate::config::Count;
use crate::sys::cpu::{self, cgroup};

/// What the machine allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// The CPUs of the affinity mask, ascending.
    pub cpus: Vec<usize>,
    /// The smallest CPU quota among the process's cgroups, in CPUs.
    pub quota: Option<f64>,
    /// What num_cpus says. It remembers the quota that it read first, so it is asked once.
    pub counted: Option<usize>,
}

/// How many lanes, and how the number came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// Lanes, at least 1.
    pub lanes: usize,
    /// How many the configuration and the machine come to by themselves.
    pub configured: usize,
    /// "affinity", "quota", "num_cpus", "configuration" or "signals".
    pub decided_by: &'static str,
    /// The same as a sentence.
    pub reason: String,
}

/// How the lanes came to be that a configuration finds which follows another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousSize {
    /// What the other one asked for.
    pub count: Count,
    /// How many that came to.
    pub configured: usize,
    /// How many there are: another number if TTIN or TTOU made them.
    pub lanes: usize,
}

/// Reads the machine. Pinning changes the mask: this comes first.
pub fn machine() -> Machine {
    Machine { counted: Some(cpu::counted()), ..measure_again() }
}

/// Reads the machine once more.
pub fn measure_again() -> Machine {
    Machine { cpus: cpu::allowed(), quota: cgroup::cpu_quota(), counted: None }
}

/// The number of lanes that `count` asks for on `machine`.
pub fn size(count: Count, machine: &Machine) -> Size {
    let allowed = machine.cpus.len();
    match count {
        Count::Fixed(lanes) => Size {
            lanes,
            configured: lanes,
            decided_by: "configuration",
            reason: format!("workers.count asks for {lanes}; {} allowed", cpus(allowed)),
        },
        Count::Auto => auto(allowed, machine),
    }
}

/// The same, where lanes are there already: what TTIN and TTOU have made of them stays for as long as the configuration
/// and the machine say what they said before.
pub fn size_after(before: Option<PreviousSize>, count: Count, machine: &Machine) -> Size {
    let size = size(count, machine);
    let is_same = |before: &PreviousSize| {
        (before.count, before.configured) == (count, size.lanes) && before.lanes != size.lanes
    };
    let Some(PreviousSize { lanes, configured, .. }) = before.filter(is_same) else {
        return size;
    };
    let reason = format!(
        "TTIN and TTOU made {lanes} of {configured}, which stays while workers.count asks for the same"
    );
    Size { lanes, configured, decided_by: SIGNALS, reason }
}

/// [`Size::decided_by`] where TTIN and TTOU did.
pub const SIGNALS: &str = "signals";

fn auto(allowed: usize, machine: &Machine) -> Size {
    // Without a mask to read, num_cpus is all there is.
    let counted = machine.counted.unwrap_or(usize::MAX);
    let allowed = if allowed == 0 { machine.counted.unwrap_or(1) } else { allowed };
    let of_quota = machine.quota.map_or(usize::MAX, |quota| (quota.ceil() as usize).max(1));
    let lanes = allowed.min(of_quota).min(counted).max(1);
    let (decided_by, reason) = if lanes == allowed {
        let quota = match machine.quota {
            Some(quota) => format!("the cgroup quota of {quota:.2} CPUs allows as many"),
            None => "there is no cgroup quota".into(),
        };
        ("affinity", format!("the affinity mask allows {}, and {quota}", cpus(allowed)))
    } else if lanes == of_quota {
        let quota = machine.quota.unwrap_or_default();
        let reason = format!(
            "the cgroup quota of {quota:.2} CPUs, rounded up, is less than the {} of the affinity mask",
            cpus(allowed)
        );
        ("quota", reason)
    } else {
        ("num_cpus", format!("num_cpus counts {}", cpus(counted)))
    };
    Size { lanes, configured: lanes, decided_by, reason }
}

fn cpus(count: usize) -> String {
    if count == 1 { "1 CPU".into() } else { format!("{count} CPUs") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_smallest_of_mask_and_quota_rounded_up_and_at_least_one() {
        // (mask, quota, num_cpus) → (lanes, decided by)
        let cases = [
            ((4, None, 4), (4, "affinity")),
            ((4, Some(2.0), 2), (2, "quota")),
            ((4, Some(1.5), 4), (2, "quota")),
            ((4, Some(0.1), 4), (1, "quota")),
            ((2, Some(8.0), 2), (2, "affinity")),
            ((2, Some(1.2), 2), (2, "affinity")),
            ((4, None, 3), (3, "num_cpus")),
            ((0, None, 2), (2, "affinity")),
            ((0, None, 0), (1, "num_cpus")),
        ];
        for ((mask, quota, counted), (lanes, decided_by)) in cases {
            let machine = Machine { cpus: (0..mask).collect(), quota, counted: Some(counted) };
            let size = size(Count::Auto, &machine);
            assert_eq!((size.lanes, size.decided_by), (lanes, decided_by), "{machine:?}");
        }
    }

    #[test]
    fn what_signals_made_of_the_lanes_stays_until_the_configuration_or_the_machine_says_otherwise()
    {
        let machine = |cpus| Machine { cpus: (0..cpus).collect(), quota: None, counted: None };
        let (fixed, auto) = (Count::Fixed(2), Count::Auto);
        // (before: asked, came to, lanes), asked, CPUs → lanes, decided by
        let cases = [
            (Some((fixed, 2, 3)), fixed, 4, (3, "signals")),
            (Some((fixed, 2, 1)), fixed, 4, (1, "signals")),
            (Some((fixed, 2, 2)), fixed, 4, (2, "configuration")),
            (Some((fixed, 2, 3)), Count::Fixed(4), 4, (4, "configuration")),
            (Some((auto, 4, 3)), auto, 4, (3, "signals")),
            (Some((auto, 4, 3)), auto, 2, (2, "affinity")),
            (Some((fixed, 4, 3)), auto, 4, (4, "affinity")),
            (None, fixed, 4, (2, "configuration")),
        ];
        for (before, count, cpus, expected) in cases {
            let before =
                before.map(|(count, configured, lanes)| PreviousSize { count, configured, lanes });
            let size = size_after(before, count, &machine(cpus));
            assert_eq!((size.lanes, size.decided_by), expected, "{before:?} {count:?} {cpus}");
        }
    }

    #[test]
    fn a_fixed_count_may_exceed_the_machine() {
        let machine = Machine { cpus: vec![0], quota: Some(0.5), counted: None };
        assert_eq!(size(Count::Fixed(3), &machine).lanes, 3);
    }
}
