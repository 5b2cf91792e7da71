//! `workers.accept`: sockets that all share, and an acceptor that hands connections over.

use super::*;

fn with(accept: Accept, lanes: usize, mode: Mode) -> Plan {
    let sockets = accept.sockets(lanes);
    Plan { accept, sockets, ..plan(&SETTINGS, lanes, mode) }
}

fn acceptor(id: u64, process: u64) -> Worker {
    Worker { number: WorkerNumber(id), process: ProcessNumber(process), role: Role::Acceptor }
}

/// Two lanes in processes of their own and the acceptor, serving at time 0, and what the last one's being ready
/// led to.
fn handing_over() -> (Policy, Vec<Action>) {
    let (mut policy, _) = Policy::begin(with(Accept::Handoff, 2, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    policy.decide(became_ready(apart(2, 1)), 0);
    let actions = policy.decide(became_ready(acceptor(3, 3)), 0);
    (policy, actions)
}

fn sharing(lanes: usize) -> Policy {
    let (mut policy, _) = Policy::begin(with(Accept::Shared, lanes, Mode::Processes), 1, 0);
    for lane in 0..lanes {
        policy.decide(became_ready(apart(lane as u64 + 1, lane)), 0);
    }
    policy
}

#[test]
fn shared_sockets_belong_to_everybody_who_is_ready() {
    let (mut policy, _) = Policy::begin(with(Accept::Shared, 2, Mode::Processes), 1, 0);
    policy.decide(became_ready(apart(1, 0)), 0);
    let actions = policy.decide(became_ready(apart(2, 1)), 0);
    let takes = [Take { worker: apart(1, 0), lane: 0 }, Take { worker: apart(2, 1), lane: 0 }];
    assert_eq!(actions[2..4], takes);
    let actions = policy.decide(ended(2), 1_000);
    let leave = Release { worker: apart(2, 1), lane: 0 };
    let start = StartProcess { generation: GenerationNumber(1), workers: vec![apart(3, 1)] };
    let look = PollAgain { worker: apart(1, 0), lane: 0 };
    assert_eq!(actions, [exited(apart(2, 1)), restarting(apart(2, 1), 1), leave, look, start]);
    let actions = policy.decide(became_ready(apart(3, 1)), 1_001);
    assert_eq!(actions[1..], [Take { worker: apart(3, 1), lane: 0 }]);
}

#[test]
fn whom_a_full_lane_was_told_of_a_sibling_looks_for() {
    let mut policy = sharing(2);
    let (first, second) = (apart(1, 0), apart(2, 1));
    let actions = policy.decide(Input::Reported(first, WorkerEvent::Full(true)), 1_000);
    assert_eq!(actions, [PollAgain { worker: second, lane: 0 }]);
    let actions = policy.decide(Input::Reported(second, WorkerEvent::Full(true)), 1_001);
    assert_eq!(actions, [Announce(Fact::AllFull { lanes: 2 })], "no lane has room");
    assert_eq!(policy.decide(Input::Reported(first, WorkerEvent::Full(false)), 1_002), []);
}

#[test]
fn a_reload_from_a_socket_for_each_lane_to_a_shared_one_closes_the_others_when_they_are_empty() {
    let mut policy = processes();
    policy.decide(Input::Replace(with(Accept::Shared, 2, Mode::Processes)), 1_000);
    policy.decide(became_ready(apart(3, 0)), 1_001);
    let actions = policy.decide(became_ready(apart(4, 1)), 1_001);
    let expected = [
        Serve(GenerationNumber(2)),
        Steer(Some(1)),
        Take { worker: apart(3, 0), lane: 0 },
        Take { worker: apart(4, 1), lane: 0 },
        Take { worker: apart(4, 1), lane: 1 },
    ];
    assert_eq!(actions[1..6], expected);
    assert_eq!(policy.next_ms(), Some(1_001 + 1_000));
    let actions = policy.decide(Input::Tick, 1_001 + HANDSHAKES_MS);
    assert!(actions.contains(&CloseLane(1)), "{actions:?}");
    let actions = policy.decide(Input::LaneClosed(1), 1_001 + HANDSHAKES_MS);
    assert_eq!(
        actions,
        [
            Release { worker: apart(4, 1), lane: 1 },
            Announce(Fact::LaneClosed { lane: 1 }),
            Steer(None)
        ]
    );
}

#[test]
fn sockets_that_a_generation_to_come_needs_are_served_until_it_is_there_and_also_if_it_never_is() {
    let mut policy = sharing(1);
    let actions = policy.decide(Input::Replace(with(Accept::Reuseport, 2, Mode::Processes)), 1_000);
    let take = Take { worker: apart(1, 0), lane: 1 };
    assert_eq!(actions[..1], [take]);
    let actions = policy.decide(ended(2), 1_001);
    assert!(actions.contains(&Steer(Some(1))), "{actions:?}");
    let actions = policy.decide(Input::Tick, 1_001 + HANDSHAKES_MS);
    assert_eq!(actions, [CloseLane(1)]);
}

#[test]
fn an_acceptor_takes_the_sockets_and_hands_to_every_lane() {
    let (_, actions) = handing_over();
    let (first, second, acceptor) = (apart(1, 0), apart(2, 1), acceptor(3, 3));
    let expected = [
        Announce(Fact::WorkerReady { worker: acceptor }),
        Serve(GenerationNumber(1)),
        Take { worker: acceptor, lane: 0 },
        Take { worker: first, lane: 0 },
        Take { worker: second, lane: 1 },
        Attach { acceptor, lane: 0, worker: first },
        Attach { acceptor, lane: 1, worker: second },
        Announce(Fact::AllReady { generation: GenerationNumber(1), lanes: 2 }),
    ];
    assert_eq!(actions, expected);
}

#[test]
fn a_lane_without_a_worker_is_passed_over_and_what_was_handed_to_it_is_a_siblings() {
    let (mut policy, _) = handing_over();
    let (first, acceptor) = (apart(1, 0), acceptor(3, 3));
    let actions = policy.decide(ended(2), 1_000);
    let [take, told] = adopted(1, first);
    let next = apart(4, 1);
    let expected = [
        exited(apart(2, 1)),
        restarting(apart(2, 1), 1),
        take,
        told,
        Release { worker: apart(2, 1), lane: 1 },
        Detach { acceptor, lane: 1 },
        StartProcess { generation: GenerationNumber(1), workers: vec![next] },
    ];
    assert_eq!(actions, expected);
    let actions = policy.decide(became_ready(next), 1_001);
    let expected = [
        Take { worker: next, lane: 1 },
        Release { worker: first, lane: 1 },
        Attach { acceptor, lane: 1, worker: next },
    ];
    assert_eq!(actions[1..], expected);
}

#[test]
fn an_acceptor_that_ends_is_replaced_and_meanwhile_nobody_accepts() {
    let (mut policy, _) = handing_over();
    let (before, next) = (acceptor(3, 3), acceptor(4, 4));
    let actions = policy.decide(ended(3), 1_000);
    let expected = [
        exited(before),
        restarting(before, 1),
        Release { worker: before, lane: 0 },
        StartProcess { generation: GenerationNumber(1), workers: vec![next] },
    ];
    assert_eq!(actions, expected);
    let actions = policy.decide(became_ready(next), 1_001);
    let feed = |lane, worker| Attach { acceptor: next, lane, worker };
    let expected = [Take { worker: next, lane: 0 }, feed(0, apart(1, 0)), feed(1, apart(2, 1))];
    assert_eq!(actions[1..], expected);
}

#[test]
fn lanes_are_sealed_when_the_acceptor_has_handed_out_what_it_had() {
    let (mut policy, _) = handing_over();
    let actions = policy.decide(Input::Stop("SIGTERM"), 1_000);
    assert_eq!(
        actions[1..],
        [
            CloseListeners,
            Drain(ProcessNumber(1), Stop),
            Drain(ProcessNumber(2), Stop),
            Drain(ProcessNumber(3), Stop)
        ]
    );
    let actions =
        policy.decide(Input::Reported(acceptor(3, 3), WorkerEvent::StoppedAccepting), 1_001);
    assert_eq!(actions, [Seal(ProcessNumber(1)), Seal(ProcessNumber(2))]);
}

#[test]
fn lanes_wait_for_an_acceptor_that_waits_for_them_but_not_for_one_that_ends() {
    let (mut policy, _) = handing_over();
    policy.decide(Input::Stop("SIGTERM"), 1_000);
    let deadline_ms = policy.next_ms().expect("the end of the drain");
    assert_eq!(policy.decide(Input::Tick, deadline_ms - 1), []);
    assert_eq!(
        policy.decide(ended(3), deadline_ms - 1)[..2],
        [Seal(ProcessNumber(1)), Seal(ProcessNumber(2))]
    );
}

#[test]
fn a_full_lane_keeps_what_was_handed_to_it() {
    let (mut policy, _) = handing_over();
    assert_eq!(policy.decide(Input::Reported(apart(1, 0), WorkerEvent::Full(true)), 1_000), []);
}

#[test]
fn a_conduit_that_the_acceptor_missed_comes_again() {
    let (mut policy, _) = handing_over();
    let acceptor = acceptor(3, 3);
    let missed = Input::Reported(acceptor, WorkerEvent::Missed(1, Missed::Conduit));
    let feed = Attach { acceptor, lane: 1, worker: apart(2, 1) };
    assert_eq!(policy.decide(missed, 1_000), [feed]);
    let missed = Input::Reported(apart(2, 1), WorkerEvent::Missed(1, Missed::Sockets));
    assert_eq!(policy.decide(missed, 1_000), [Take { worker: apart(2, 1), lane: 1 }]);
}

#[test]
fn a_lane_that_is_given_up_leaves_what_was_handed_to_it_to_a_sibling() {
    let (mut policy, _) = handing_over();
    let (first, acceptor) = (apart(1, 0), acceptor(3, 3));
    let actions = policy.decide(Input::Resize(1), 1_000);
    let expected = [
        Announce(Fact::Resized { lanes: 1 }),
        Take { worker: first, lane: 1 },
        Release { worker: apart(2, 1), lane: 1 },
        Detach { acceptor, lane: 1 },
        Drain(ProcessNumber(2), Replaced),
    ];
    assert_eq!(actions, expected);
}
