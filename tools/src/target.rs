//! The store that a command works on: one that a server has open, or a closed one.
//!
//! Owns: [`Target`], which decides whether the server or this process executes an admin operation.
//! Refuses: what an operation does (`tonnage_server::admin`), and printing answers, which the commands do.
//!
//! Invariant: all answers of one target come from the same side. A list that began with a server is not continued from
//! the closed store, or the other way round.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonnage_engine::{ClosedStore, Options, Store};
use tonnage_server::admin::{AdminAnswer, AdminError, AdminRequest, OpenStore, Operation, execute};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::online::Socket;
use crate::runtime::EngineRuntime;

/// Arguments that name a store.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArguments {
    /// Use the server with this socket [default: the socket in the data directory]
    #[arg(long, value_name = "PATH")]
    server: Option<String>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// A store, and the side that executes its operations.
#[derive(Debug)]
pub(crate) struct Target {
    side: Side,
    /// Whether a server may execute operations.
    asks_server: bool,
    socket: Socket,
    data: PathBuf,
    options: Options,
    runtime: EngineRuntime,
}

/// The side that executes operations.
#[derive(Debug)]
enum Side {
    /// No operation was executed yet, or no server answered and the store was closed again.
    Undecided,
    /// A server answered.
    Server,
    /// No server answered; the store is open for reading.
    Closed(ClosedStore),
    /// No server answered; the store is open in this process, for a job that was started.
    Opened(OpenStore),
}

/// What an operation needs.
enum Need {
    /// A running server: why, and what to do without one.
    Server(&'static str, &'static str),
    /// The store, to read it.
    Reading,
    /// The store, open for changes during this operation.
    Change,
    /// The store, open for changes as long as a job runs.
    Job,
}

impl Target {
    /// Finds the store that the command line names, without opening it or connecting.
    pub(crate) fn find(arguments: &TargetArguments) -> Result<Self, Failure> {
        Self::at(&arguments.flags, arguments.server.as_deref())
    }

    /// Finds the closed store that the flags name. No server is asked.
    pub(crate) fn closed(flags: &ConfigFlags) -> Result<Self, Failure> {
        Ok(Self {
            asks_server: false,
            ..Self::at(flags, None)?
        })
    }

    fn at(flags: &ConfigFlags, server: Option<&str>) -> Result<Self, Failure> {
        let config = config::load(flags).into_valid()?.config;
        let data = config.data()?;
        Ok(Self {
            side: Side::Undecided,
            asks_server: true,
            socket: Socket::find(server, &data)?,
            data,
            options: config.store,
            runtime: EngineRuntime::start(config.io)?,
        })
    }

    /// Executes an operation on the server, or in this process if no server has the store open.
    pub(crate) fn ask<O: Operation>(&mut self, operation: O) -> Result<O::Answer, Failure> {
        let request = operation.into();
        let answer = match self.ask_server(&request)? {
            Some(answer) => answer,
            None => self.execute_closed(request)?,
        };
        O::answer(answer).ok_or_else(|| self.socket.unusable("it is for another operation"))
    }

    /// Returns the directory of the store, or the socket if that was named instead.
    pub(crate) fn path(&self) -> &Path {
        self.socket.named().unwrap_or(&self.data)
    }

    /// Returns whether a server answered.
    pub(crate) fn is_served(&self) -> bool {
        matches!(self.side, Side::Server)
    }

    /// Waits. What runs in this process continues meanwhile.
    pub(crate) fn wait(&self, time: Duration) {
        // Created inside, because a timer belongs to the runtime that it is created in.
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    /// Closes the store if it is open for a job in this process.
    pub(crate) fn end_job(&mut self) -> Result<(), Failure> {
        let Side::Opened(store) = std::mem::replace(&mut self.side, Side::Undecided) else {
            return Ok(());
        };
        let closed = self.runtime.block_on(store.close());
        closed.map_err(|error| Failure::of_store(&error, &self.data))
    }

    /// Returns the server's answer; `None` if the store is closed.
    fn ask_server(&mut self, request: &AdminRequest) -> Result<Option<AdminAnswer>, Failure> {
        if !self.asks_server || matches!(self.side, Side::Closed(_) | Side::Opened(_)) {
            return Ok(None);
        }
        let answer = self.runtime.block_on(self.socket.ask(request))?;
        match (&answer, &self.side) {
            (None, Side::Server) => {
                let what = "the server stopped before the answer was complete";
                return Err(Failure::new(Exit::Network, what).hint("repeat the command"));
            }
            (Some(_), _) => self.side = Side::Server,
            (None, _) => {}
        }
        Ok(answer)
    }

    /// Executes an operation in this process.
    fn execute_closed(&mut self, request: AdminRequest) -> Result<AdminAnswer, Failure> {
        let answer = match need(&request) {
            Need::Server(why, hint) => {
                let what = format!("no server has {} open, and {why}", self.data.display());
                return Err(Failure::new(Exit::Network, what).hint(hint));
            }
            Need::Reading => self.read_closed(request),
            Need::Change => self.change_closed(request),
            Need::Job => self.work_closed(request),
        };
        answer.map_err(|error| match error {
            AdminError::NotFound(missing) => Failure::not_found(&missing, &self.socket.place()),
            AdminError::Store(error) => Failure::of_store(&error, &self.data),
            AdminError::Invalid(_) => Failure::new(Exit::Usage, error.to_string()),
            AdminError::Runs { .. } => Failure::new(Exit::InUse, error.to_string()),
            AdminError::ReadOnly | AdminError::Contended => {
                Failure::new(Exit::Disk, error.to_string())
            }
        })
    }

    /// Reads the closed store, which stays open for reading, so that all pages of a list show one state.
    fn read_closed(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        let store = match std::mem::replace(&mut self.side, Side::Undecided) {
            Side::Closed(store) => store,
            Side::Undecided | Side::Server | Side::Opened(_) => {
                let env = self.runtime.env().clone();
                self.runtime.block_on(ClosedStore::open(env, &self.data))?
            }
        };
        let answer = self.runtime.block_on(execute(&store, request));
        self.side = Side::Closed(store);
        answer
    }

    /// Opens the closed store for a change and closes it again.
    fn change_closed(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        let store = self.open_closed()?;
        self.runtime.block_on(async {
            let answer = execute(&store, request).await;
            let closed = store.close().await;
            let answer = answer?;
            closed?;
            Ok(answer)
        })
    }

    /// Opens the closed store, which stays open until [`Target::end_job`].
    fn work_closed(&mut self, request: AdminRequest) -> Result<AdminAnswer, AdminError> {
        if !matches!(self.side, Side::Opened(_)) {
            self.side = Side::Opened(self.open_closed()?);
        }
        let Side::Opened(store) = &self.side else {
            return Err(AdminError::ReadOnly);
        };
        self.runtime.block_on(execute(store, request))
    }

    fn open_closed(&mut self) -> Result<OpenStore, AdminError> {
        // Closed first, because a store that is open for reading holds the lock.
        self.side = Side::Undecided;
        let env = self.runtime.env().clone();
        let options = Options {
            // Nothing but the request changes the store.
            collection_manual: true,
            scrub_bytes_per_second: 0,
            ..self.options.clone()
        };
        let opened = Store::open_existing(env, &self.data, options);
        let (store, _) = self.runtime.block_on(opened)?;
        Ok(OpenStore::of_closed(store))
    }
}

/// Returns what a request needs if no server has the store open.
fn need(request: &AdminRequest) -> Need {
    match request {
        AdminRequest::StartScrub(_) | AdminRequest::GetScrub(_) => Need::Server(
            "scrub is the check of a running one",
            "to check a closed store: tonnage fsck, with --deep to compute digests",
        ),
        AdminRequest::ListJobs(_) | AdminRequest::ControlJobs(_) => {
            Need::Server("only a running one has jobs", "start the server")
        }
        AdminRequest::StartCollection(_)
        | AdminRequest::GetCollection(_)
        | AdminRequest::StartRepair(_)
        | AdminRequest::GetRepair(_) => Need::Job,
        AdminRequest::PlanRepair(_) => Need::Change,
        AdminRequest::GetStats(_)
        | AdminRequest::ListRepositories(_)
        | AdminRequest::ListTags(_)
        | AdminRequest::ListUsage(_)
        | AdminRequest::TryDeletion(_)
        | AdminRequest::Whence(_)
        | AdminRequest::DeleteRepository(_)
        | AdminRequest::DeleteTags(_) => {
            if request.changes_store() {
                Need::Change
            } else {
                Need::Reading
            }
        }
    }
}
