//! The policy under any sequence of events, in a world where its actions are carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What the world would look like if every action were carried out.
#[derive(Debug, Default)]
struct World {
    /// Living processes, with their workers.
    processes: BTreeMap<ProcessNumber, BTreeSet<Worker>>,
    generation_of: BTreeMap<ProcessNumber, GenerationNumber>,
    accept_of: BTreeMap<GenerationNumber, Accept>,
    /// Which worker accepts from which lane's sockets.
    accepting: BTreeSet<(Worker, usize)>,
    /// Which worker takes what is handed to which lane.
    taking: BTreeSet<(Worker, usize)>,
    /// Which acceptor hands to which lane.
    feeding: BTreeMap<(Worker, usize), Worker>,
    draining: BTreeMap<ProcessNumber, DrainKind>,
    /// Which worker has the admin address.
    attending: Option<Worker>,
    killed: BTreeSet<ProcessNumber>,
    closed: bool,
    /// Whose workers ended or hung, and when.
    ends: Vec<(Role, u64)>,
    exit: Option<i32>,
    given_up: usize,
}

impl World {
    fn carry_out(&mut self, policy: &mut Policy, actions: Vec<Action>, now_ms: u64) {
        let mut actions = std::collections::VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            assert_eq!(self.exit, None, "nothing comes after the exit: {action:?}");
            match action {
                StartProcess { generation, workers } => {
                    let key = workers[0].process;
                    assert!(workers.iter().all(|worker| worker.process == key));
                    self.generation_of.insert(key, generation);
                    let made = policy.generations.iter().find(|of| of.number == generation);
                    self.accept_of.insert(generation, made.expect("it starts").accept);
                    let before = self.processes.insert(key, workers.iter().copied().collect());
                    assert_eq!(before, None, "a process twice");
                }
                CloseLane(lane) => {
                    let input = Input::LaneClosed(lane);
                    actions.extend(policy.decide(input, now_ms));
                }
                Exit(code) => {
                    assert!(self.processes.is_empty(), "processes are left");
                    self.exit = Some(code);
                }
                Announce(fact) => self.take_note(&fact, now_ms),
                other => self.carry_out_for_processes(other),
            }
        }
    }

    /// An action that concerns one process or worker, or all listening sockets.
    fn carry_out_for_processes(&mut self, action: Action) {
        match action {
            StartWorker(worker) => {
                let workers = self.processes.get_mut(&worker.process);
                assert!(workers.expect("a worker without a process").insert(worker));
            }
            Drain(process, kind) => {
                assert!(self.processes.contains_key(&process));
                let before = self.draining.insert(process, kind);
                assert!(before < Some(kind), "told twice");
                self.forget(|worker| worker.process == process);
            }
            Seal(process) => assert!(self.processes.contains_key(&process)),
            DrainWorker(worker) => self.forget(|of| of == worker),
            Kill(process) => {
                assert!(self.processes.contains_key(&process), "{process} is gone");
                self.killed.insert(process);
            }
            CloseListeners => self.closed = true,
            Serve(_) => {
                // A process of the generation before that was killed needs no order to accept no more.
                let killed = self.killed.clone();
                self.forget(|worker| killed.contains(&worker.process));
            }
            other => self.carry_out_for_sockets(other),
        }
    }

    /// An action that says which worker takes connections from where.
    fn carry_out_for_sockets(&mut self, action: Action) {
        match action {
            Take { worker, lane } => {
                assert!(self.lives(worker), "{worker:?} is gone");
                assert!(!self.closed, "sockets are closed");
                let is_new = self.has(worker).insert((worker, lane));
                assert!(is_new, "taken twice");
            }
            Release { worker, lane } => {
                self.has(worker).remove(&(worker, lane));
            }
            PollAgain { worker, lane } => {
                assert!(
                    self.has(worker).contains(&(worker, lane)),
                    "{worker:?} has no such sockets"
                );
            }
            Attach { acceptor, lane, worker } => {
                assert!(self.lives(acceptor) && self.lives(worker));
                self.feeding.insert((acceptor, lane), worker);
            }
            Detach { acceptor, lane } => {
                assert!(self.feeding.remove(&(acceptor, lane)).is_some());
            }
            TakeOwn(worker) => {
                assert!(self.lives(worker), "{worker:?} is gone");
                assert!(!self.draining.contains_key(&worker.process), "{worker:?} leaves");
                self.attending = Some(worker);
            }
            CloseOwn(_) => assert!(self.closed, "the lanes' sockets are closed first"),
            Steer(_) | ReadBeats | Renew { .. } | Forget(_) => {}
            other => unreachable!("{other:?} is carried out above"),
        }
    }

    fn take_note(&mut self, fact: &Fact, now_ms: u64) {
        match fact {
            // They may never end, and nothing is to be done about it.
            Fact::LeftBehind { .. } => self.processes.clear(),
            Fact::WorkerExited { worker, .. } | Fact::WorkerHung { worker, .. } => {
                self.ends.push((worker.role, now_ms));
            }
            Fact::WorkerGaveUp { worker: Worker { role, .. }, .. } => {
                let since_ms = now_ms.saturating_sub(WATCHED.restart_window_ms);
                let recent = |(of, ms): &&(Role, u64)| of == role && *ms >= since_ms;
                let ends = self.ends.iter().filter(recent).count();
                assert!(ends > WATCHED.max_restarts as usize, "given up after {ends} ends");
                assert!(role.serves(), "given up because of {role}");
                self.given_up += 1;
            }
            _ => {}
        }
    }

    /// What a worker takes connections from.
    fn has(&mut self, worker: Worker) -> &mut BTreeSet<(Worker, usize)> {
        let accept = self.accept_of[&self.generation_of[&worker.process]];
        match (accept, worker.role) {
            (Accept::Handoff, Role::Lane(_)) => &mut self.taking,
            _ => &mut self.accepting,
        }
    }

    fn forget(&mut self, is_meant: impl Fn(Worker) -> bool) {
        self.accepting.retain(|(worker, _)| !is_meant(*worker));
        self.taking.retain(|(worker, _)| !is_meant(*worker));
    }

    fn lives(&self, worker: Worker) -> bool {
        self.processes.get(&worker.process).is_some_and(|workers| workers.contains(&worker))
    }

    fn workers(&self) -> Vec<Worker> {
        self.processes.values().flatten().copied().collect()
    }

    fn end_process(&mut self, process: ProcessNumber, input: Input) -> Input {
        self.processes.remove(&process);
        self.draining.remove(&process);
        self.forget(|worker| worker.process == process);
        self.feeding.retain(|(acceptor, _), _| acceptor.process != process);
        self.attending.take_if(|worker| worker.process == process);
        input
    }

    /// What has to hold whenever the policy has decided.
    fn check(&self, policy: &Policy) {
        if policy.phase != Phase::Serving {
            return;
        }
        let current = &policy.generations[policy.current().expect("it serves")];
        if let Some((WorkerState::Ready, Some(worker))) = policy.state_of(Role::Admin)
            && !self.killed.contains(&worker.process)
        {
            assert_eq!(self.attending, Some(worker), "it is ready, and has no sockets");
        }
        let states = policy.lane_states();
        let ready = states.iter().filter(|(state, _)| state.is_ready());
        let ready: Vec<Worker> = ready.filter_map(|(_, worker)| *worker).collect();
        match current.accept {
            Accept::Reuseport => self.check_owners(policy, &self.accepting, |_| true),
            Accept::Shared => {
                assert_eq!(self.owners(0), ready.into_iter().collect());
            }
            Accept::Handoff => {
                let acceptor = policy.state_of(Role::Acceptor).expect("it has an acceptor");
                let is_there = acceptor.0.is_ready() || acceptor.0 == WorkerState::Hung;
                let owner = acceptor.1.filter(|_| acceptor.0.is_ready());
                let acceptor = acceptor.1.filter(|_| is_there);
                assert_eq!(self.owners(0), owner.into_iter().collect());
                let of_current = |worker: Worker| {
                    self.generation_of.get(&worker.process) == Some(&current.number)
                };
                self.check_owners(policy, &self.taking, of_current);
                let fed = ready.iter().filter_map(|worker| Some((worker.role.lane()?, *worker)));
                let fed = fed.filter(|_| acceptor.is_some()).collect();
                let feeding = self.feeding.iter().filter(|((of, _), _)| Some(*of) == acceptor);
                let feeding: BTreeMap<_, _> =
                    feeding.map(|((_, lane), worker)| (*lane, *worker)).collect();
                assert_eq!(feeding, fed);
            }
        }
        // One driver for a lane in a generation: a second worker is there only to drain or to be killed.
        let mut drivers = BTreeSet::new();
        for (_, worker) in states {
            let Some(worker) = worker else { continue };
            assert!(self.lives(worker), "{worker:?} drives, and is gone");
            let generation = self.generation_of[&worker.process];
            assert!(drivers.insert((generation, worker.role.lane())));
        }
    }

    /// Which workers accept from the sockets of a lane.
    fn owners(&self, lane: usize) -> BTreeSet<Worker> {
        let of_lane = self.accepting.iter().filter(|(_, of)| *of == lane);
        of_lane.map(|(worker, _)| *worker).collect()
    }

    /// Every lane has one owner, if any worker can be one.
    fn check_owners(
        &self,
        policy: &Policy,
        taken: &BTreeSet<(Worker, usize)>,
        is_meant: impl Fn(Worker) -> bool,
    ) {
        let states = policy.lane_states();
        let is_any_ready = states.iter().any(|(state, _)| state.is_ready());
        for lane in 0..policy.lanes() {
            let owners = taken.iter().filter(|(worker, of)| *of == lane && is_meant(*worker));
            let owners: Vec<_> = owners.collect();
            assert!(owners.len() <= 1, "lane {lane} has {owners:?}");
            // Beside a sibling that it starts together with, a lane may wait for its own worker.
            let follows = match states[lane] {
                (WorkerState::Starting, Some(worker)) => states.iter().all(|(state, of)| {
                    !state.is_ready() || of.is_some_and(|of| of.process == worker.process)
                }),
                _ => false,
            };
            let least = usize::from(is_any_ready && !follows);
            assert!(owners.len() >= least, "lane {lane}: {owners:?} {states:?}");
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> Option<T> {
        (!list.is_empty()).then(|| list[self.below(list.len())])
    }
}

fn random_plan(random: &mut Random) -> Plan {
    let accept = [Accept::Reuseport, Accept::Shared, Accept::Handoff][random.below(3)];
    let lanes = 1 + random.below(4);
    let sockets = accept.sockets(lanes);
    let roles = [Role::Admin, Role::AccessLog];
    let auxiliary = roles.into_iter().filter(|_| random.below(2) == 0).collect();
    Plan {
        accept,
        sockets,
        auxiliary,
        ..plan(&WATCHED, lanes, if random.below(2) == 0 { Mode::Threads } else { Mode::Processes })
    }
}

/// Some event that can happen in this world.
fn random_input(random: &mut Random, world: &mut World, now_ms: &mut u64) -> Input {
    let keys: Vec<ProcessNumber> = world.processes.keys().copied().collect();
    let workers = world.workers();
    let process = random.of(&keys);
    let worker = random.of(&workers);
    match (random.below(18), process, worker) {
        (0, Some(process), _) => world.end_process(process, ended(process.0)),
        (1, Some(process), _) if world.draining.contains_key(&process) => {
            world.end_process(process, left(process.0))
        }
        (2, Some(process), _) if !world.killed.contains(&process) => {
            // Of its worker the policy needs the process alone: the one that it names may have ended.
            let worker = Worker { number: WorkerNumber(0), process, role: Role::Lane(0) };
            Input::Reported(worker, WorkerEvent::ToldToEnd)
        }
        (3, _, Some(worker)) if world.processes[&worker.process].len() > 1 => {
            world.processes.get_mut(&worker.process).unwrap().remove(&worker);
            world.forget(|of| of == worker);
            world.feeding.retain(|(of, _), _| *of != worker);
            Input::Reported(worker, WorkerEvent::Failed(KILLED.into()))
        }
        (4..=9, _, Some(worker)) => became_ready(worker),
        (10, _, Some(worker)) if random.below(2) == 0 => {
            Input::Reported(worker, WorkerEvent::StoppedAccepting)
        }
        (10, _, Some(worker)) => beat(worker, random.below(8_000) as u64),
        (16, _, Some(worker)) => Input::Reported(worker, WorkerEvent::Full(random.below(2) == 0)),
        (11, _, _) => Input::Replace(random_plan(random)),
        (12, _, _) => Input::Resize(1 + random.below(4)),
        _ => {
            *now_ms += random.below(1_500) as u64;
            Input::Tick
        }
    }
}

#[test]
fn any_sequence_of_events_keeps_one_owner_for_every_socket_and_ends_after_a_signal() {
    let (mut served, mut given_up) = (0, 0);
    for seed in 1..2_000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut world = World::default();
        let (mut policy, actions) = Policy::begin(random_plan(&mut random), seed, 0);
        let mut now_ms = 0;
        world.carry_out(&mut policy, actions, now_ms);
        let length = 20 + random.below(400);
        for _ in 0..length {
            if world.exit.is_some() {
                break;
            }
            let input = random_input(&mut random, &mut world, &mut now_ms);
            // A process that tells that it leaves accepts no more.
            if let Input::Reported(Worker { process, .. }, WorkerEvent::ToldToEnd) = input {
                world.draining.entry(process).or_insert(Stop);
                world.forget(|worker| worker.process == process);
            }
            let actions = policy.decide(input, now_ms);
            world.carry_out(&mut policy, actions, now_ms);
            world.check(&policy);
            served += usize::from(policy.phase == Phase::Serving);
        }
        for _ in 0..2 {
            if world.exit.is_none() {
                let actions = policy.decide(Input::Stop("SIGTERM"), now_ms);
                world.carry_out(&mut policy, actions, now_ms);
            }
        }
        while let Some(process) = world.processes.keys().next().copied() {
            let input = world.end_process(process, ended(process.0));
            let actions = policy.decide(input, now_ms);
            world.carry_out(&mut policy, actions, now_ms);
        }
        given_up += world.given_up;
        assert!(world.exit.is_some(), "seed {seed} does not end: {policy:?}");
    }
    assert!(served > 10_000, "the model hardly ever served: {served}");
    assert!(given_up > 10, "the model hardly ever gave up: {given_up}");
}
