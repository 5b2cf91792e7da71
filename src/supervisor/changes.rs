//! What the supervisor is asked for while it serves: another configuration, number of lanes or binary, its
//! status, its end. Each is prepared here, refused if it can't be, and then the policy's to decide about.

use super::commands::{Answer, Commands, Request};
use super::policy::Input;
use super::{
    LANES_MAX, MEASURE_MS, Supervisor, TOKEN_HEIR, manager, pid_file, sizing, startup, status,
};
use crate::config::{self, Engine};
use crate::sys::epoll::Interest;
use crate::sys::process;

impl Supervisor {
    /// What a client of the command socket asks for.
    pub(super) fn asked(&mut self, token: u64, request: Request) -> Option<Input> {
        match request {
            Request::Status => {
                let uptime_ms = self.now_ms();
                let (processes, listeners) = (&self.processes, &self.listeners);
                let (policy, history) = (&self.policy, &self.history);
                let status =
                    status::status(self.current, uptime_ms, policy, processes, listeners, history);
                let unready = || Answer::Failed("no generation serves".into());
                let answer = status.map_or_else(unready, |status| Answer::Status(Box::new(status)));
                self.commands.answer(token, &answer);
                None
            }
            Request::Reload => self.reload(),
            Request::Stop => {
                self.commands.answer(token, &Answer::Done("draining".into()));
                self.stop("server stop")
            }
            Request::Upgrade => {
                self.upgrade();
                None
            }
        }
    }

    pub(super) fn stop(&mut self, reason: &'static str) -> Option<Input> {
        self.disinherit("this server was told to stop");
        manager::stopping();
        Some(Input::Stop(reason))
    }

    /// Starts the binary anew and hands it the sockets. Until it serves, nothing else changes.
    pub(super) fn upgrade(&mut self) {
        let until_ms = self.config().map(|config| config.supervisor.ready_timeout);
        let until_ms = self.now_ms() + 2 * until_ms.unwrap_or_default().as_millis() as u64;
        if self.heir.is_some() {
            // Whoever asks meanwhile hears of that one's end.
            tracing::warn!(reason = "one is under way", "upgrade ignored");
            return;
        }
        tracing::info!("upgrade started");
        let started = if process::id() == 1 {
            Err("as pid 1 it can't make way for another process; replace the container".into())
        } else if self.engine() == Some(Engine::May) {
            Err("the sockets of the engine \"may\" can't be handed over; stop and start".into())
        } else if self.policy.is_changing() {
            Err("another change is under way".to_owned())
        } else {
            let heir = self.origin.start_heir(&self.listeners, &self.history, until_ms);
            let heir = heir.and_then(|heir| {
                self.epoll.add(&heir.control, TOKEN_HEIR, Interest::Readable)?;
                Ok(heir)
            });
            heir.map_err(|error| format!("cannot start the binary: {error}"))
        };
        match started {
            Ok(heir) => self.heir = Some(heir),
            Err(reason) => self.upgrade_failed(&reason),
        }
    }

    /// The new supervisor can't be: it goes, and this one stays.
    pub(super) fn disinherit(&mut self, reason: &str) {
        if let Some(heir) = self.heir.take() {
            process::kill(heir.pid);
            self.upgrade_failed(reason);
        }
    }

    pub(super) fn upgrade_failed(&mut self, reason: &str) {
        tracing::error!(reason, "upgrade failed");
        self.commands.answer_all(Request::Upgrade, &Answer::Failed(reason.to_owned()));
    }

    /// The new supervisor serves: this one drains.
    pub(super) fn hand_over(&mut self) -> Option<Input> {
        let heir = self.heir.take()?;
        self.listeners.leave_to_heir();
        manager::main_process(heir.pid);
        tracing::info!(pid = heir.pid, "upgrade done");
        let text = format!("pid {} serves", heir.pid);
        self.commands.answer_all(Request::Upgrade, &Answer::Done(text));
        Some(Input::HandedOver)
    }

    /// Opens the command socket and writes the pid file. Without them the server serves all the same.
    pub(super) fn appear(&mut self) {
        let Some(supervisor) = self.config().map(|config| config.supervisor.clone()) else {
            return;
        };
        if let Some(path) = &supervisor.control_socket {
            match Commands::open(path, self.is_heir, &self.epoll) {
                Ok(commands) => self.commands = commands,
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, reason = %error, "no command socket");
                }
            }
        }
        if let Some(path) = &supervisor.pid_file {
            match pid_file::write(path) {
                Ok(()) => self.pid_file = Some(path.clone()),
                Err(error) => {
                    let path = path.display();
                    tracing::warn!(%path, reason = %error, "no pid file");
                }
            }
        }
    }

    /// Takes away what [`Supervisor::appear`] has made.
    pub(super) fn disappear(&mut self) {
        self.commands.close();
        if let Some(path) = self.pid_file.take() {
            pid_file::remove(&path);
        }
    }

    /// Reads the configuration again, and prepares a generation of it. If it is bad, nothing has changed.
    pub(super) fn reload(&mut self) -> Option<Input> {
        if self.policy.is_changing() {
            self.reload_again = true;
            return None;
        }
        tracing::info!(generation = self.policy.next_generation(), "reload started");
        manager::reloading();
        let prepared = config::load(&self.options).map_err(|errors| errors.to_string());
        let prepared = prepared.and_then(|loaded| {
            if self.engine().is_some_and(|engine| engine != loaded.config.workers.engine) {
                return Err(
                    "workers.engine can't change while the server runs; stop and start".into()
                );
            }
            let number = self.policy.next_generation();
            startup::prepare(number, loaded.config, &mut self.listeners, self.processes.ledger())
        });
        match prepared {
            Ok((made, plan)) => {
                self.measured = plan.lanes;
                self.processes.add(made);
                Some(Input::Replace(plan))
            }
            Err(reason) => {
                tracing::error!(reason, "reload rejected");
                self.reload_ended(&Answer::Failed(reason));
                self.keep_current_listeners();
                None
            }
        }
    }

    fn engine(&self) -> Option<Engine> {
        self.config().map(|config| config.workers.engine)
    }

    /// Says so to everybody who waits for it. Whatever came of it, the server serves.
    pub(super) fn reload_ended(&mut self, answer: &Answer) {
        self.commands.answer_all(Request::Reload, answer);
        manager::ready(self.policy.lanes(), self.current);
    }

    /// Closes the sockets of addresses that the generation that serves has no use for.
    pub(super) fn keep_current_listeners(&mut self) {
        if let Some(made) = self.processes.generation(self.current) {
            self.listeners.keep(&made.addresses);
        }
    }

    /// Sees to it that there are sockets for so many lanes.
    pub(super) fn resize(&mut self, lanes: usize) -> Option<Input> {
        if self.policy.is_changing() {
            tracing::warn!(lanes, reason = "another change is under way", "resize rejected");
            return None;
        }
        let config = self.config()?;
        let (sockets, backlog) = (config.workers.accept.sockets(lanes), config.server.backlog);
        match self.listeners.grow(sockets, backlog) {
            Ok(()) => Some(Input::Resize(lanes)),
            Err(error) => {
                tracing::error!(lanes, reason = %error, "resize rejected");
                None
            }
        }
    }

    /// Looks whether the machine allows another number of lanes than it did.
    pub(super) fn measure(&mut self) -> Option<Input> {
        self.measure_ms = self.now_ms() + MEASURE_MS;
        let machine = sizing::measure_again();
        let config = self.config()?;
        let lanes = sizing::size(config.workers.count, &machine).lanes.min(LANES_MAX);
        if lanes == self.measured {
            return None;
        }
        startup::size(config, &machine);
        let pin = config.workers.pin;
        self.measured = lanes;
        if pin && let Some(made) = self.processes.generation_mut(self.current) {
            made.cpus = machine.cpus;
        }
        self.resize(lanes)
    }
}
