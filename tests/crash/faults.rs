//! A server with a hundred clients on a failing disk.
//!
//! Owns: [`lane`]. Refuses: guesses about which fault hits which request. While faults are on, an error is always
//! allowed; a broken promise never is.
//!
//! In each phase one kind of fault is on while all clients push, pull and delete; then the faults are off. Either all
//! clients stop first, or the power is cut in the middle of their work. Then everything acknowledged is checked. A
//! store that accepts no more writes is restarted first, as its log demands.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use tokio::task::JoinSet;
use tonnage_tests::content::Seeded;
use tonnage_tests::faulty::{FaultyDisk, Rates};
use tonnage_tests::http::{Connection, Ended};
use tonnage_tests::process::Server;
use tonnage_tests::push::Pusher;
use tonnage_tests::say;

use crate::kill::collecting;
use crate::lane::{fsck, number};
use crate::ledger::Ledger;
use crate::work::{Kind, operation};

const CLIENTS: u64 = 100;
/// An operation is a few requests; one that takes longer counts as hung.
const OPERATION_BOUND: Duration = Duration::from_secs(150);
/// The number of phases of a store; then the next one begins in an empty directory. This limits what each check reads.
const PHASES_A_STORE: u64 = 6;

/// Returns the duration: 300 s, 45 s in full runs, 5 s otherwise, or `TONNAGE_TEST_FAULT_SECONDS`.
pub fn seconds() -> Result<u64, String> {
    let asked = number("TONNAGE_TEST_FAULT_SECONDS")?;
    Ok(asked.unwrap_or(if say::full() { 45 } else { 5 }))
}

/// The kinds of faults, used in turn. Each is rare enough that most requests still succeed.
const KINDS: [(&str, Rates); 6] = {
    const NONE: Rates = Rates {
        reads: 0,
        writes: 0,
        syncs: 0,
        names: 0,
        full: 0,
        short: 0,
        interrupted: 0,
        direct: 0,
    };
    const SHORT: Rates = Rates {
        short: 3000,
        interrupted: 500,
        ..NONE
    };
    [
        ("short and interrupted transfers", SHORT),
        (
            "unreadable",
            Rates {
                reads: 500,
                ..SHORT
            },
        ),
        ("full", Rates { full: 500, ..NONE }),
        (
            "unwritable",
            Rates {
                writes: 30,
                ..SHORT
            },
        ),
        ("failing syncs", Rates { syncs: 150, ..NONE }),
        (
            "all at once",
            Rates {
                reads: 100,
                writes: 15,
                syncs: 30,
                names: 100,
                full: 50,
                short: 1000,
                interrupted: 200,
                direct: 1000,
            },
        ),
    ]
};

/// The state that all clients of a phase share.
#[derive(Debug, Default)]
struct Phase {
    /// Reads fail in this phase.
    unreadable: bool,
    over: AtomicBool,
    /// The power was cut: connections break.
    killed: AtomicBool,
    done: AtomicU64,
    refused: AtomicU64,
    broken: AtomicU64,
}

impl Phase {
    fn kind(&self) -> Kind {
        Kind {
            huge: false,
            unreadable: self.unreadable,
        }
    }
}

struct Lane {
    runtime: tokio::runtime::Runtime,
    disk: FaultyDisk,
    choices: Seeded,
    phase: Duration,
    totals: [u64; 3],
    poisoned: u64,
    cuts: u64,
}

/// Runs for about `seconds` of faults.
pub fn lane(disk: FaultyDisk, seed: u64, seconds: u64) -> Result<(), String> {
    // A long run has each kind at least twice, every run at least once.
    let phase = Duration::from_millis((seconds * 1000 / KINDS.len() as u64).min(12_500));
    let phases = (seconds * 1000).div_ceil(u64::try_from(phase.as_millis()).unwrap_or(1).max(1));
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("start a runtime: {e}"))?;
    let mut lane = Lane {
        runtime,
        disk,
        choices: Seeded::new(seed),
        phase,
        totals: [0; 3],
        poisoned: 0,
        cuts: 0,
    };
    let mut number = 0;
    while number < phases {
        let last = (number + PHASES_A_STORE).min(phases);
        lane.one_store(number..last)
            .map_err(|why| format!("TONNAGE_TEST_SEED={seed}: {why}"))?;
        number = last;
    }
    let [done, refused, broken] = lane.totals;
    let faults = lane.disk.done();
    say::print_line(&format!(
        "faulty disk: {CLIENTS} clients for {seconds} s: {done} operations acknowledged, \
         {refused} refused, {broken} cut off; {} faults ({} of them failed syncs), {} short transfers, {} writes lost; \
         {} power cuts, {} times no more writes",
        faults.failed, faults.syncs, faults.short, faults.lost, lane.cuts, lane.poisoned
    ));
    if done == 0 || faults.failed == 0 || faults.short == 0 {
        return Err(
            "nothing was acknowledged, or no fault was injected: the run tests nothing".into(),
        );
    }
    Ok(())
}

impl Lane {
    fn one_store(&mut self, phases: std::ops::Range<u64>) -> Result<(), String> {
        let data = self.disk.path().join(format!("data{}", phases.start));
        let log = PathBuf::from(format!("{}.log", data.display()));
        // Every second store, in long runs.
        let collects = !(phases.start / PHASES_A_STORE).is_multiple_of(2);
        let options = if collects { collecting() } else { Vec::new() };
        let mut server = Server::start_as(&data, &log, &[], options)?;
        let ledger = |_| Ledger {
            collects,
            ..Ledger::default()
        };
        let mut ledgers: Vec<Ledger> = (0..CLIENTS).map(ledger).collect();
        let (clean, _) = self.run_clients(&mut server, ledgers, Duration::ZERO, false, false)?;
        ledgers = clean;
        for number in phases {
            let kinds = KINDS.len() as u64;
            let (name, rates) = KINDS[usize::try_from(number % kinds).expect("a few")];
            let cut = self.choices.between(0, 2) == 0;
            let unreadable = rates.reads > 0;
            self.disk.fail(rates);
            let worked = self.run_clients(&mut server, ledgers, self.phase, unreadable, cut);
            self.disk.fail(Rates::default());
            let phase;
            (ledgers, phase) = worked.map_err(|why| format!("phase {number}, {name}: {why}"))?;
            let after = self.after(&mut server, unreadable, cut)?;
            let [done, refused, broken] =
                [&phase.done, &phase.refused, &phase.broken].map(|n| n.load(Ordering::SeqCst));
            say::print_line(&format!(
                "phase {number}, {name}: {done} acknowledged, {refused} refused, {broken} cut off; then {after}"
            ));
            for (total, more) in self.totals.iter_mut().zip([done, refused, broken]) {
                *total += more;
            }
            ledgers = self.check(&server, ledgers).map_err(|why| {
                format!(
                    "after phase {number}, {name}: {why}\nserver log:\n{}",
                    server.log()
                )
            })?;
        }
        let status = server.stop()?;
        if !status.success() {
            return Err(format!("after SIGTERM: {status}:\n{}", server.log()));
        }
        fsck(&data, "after a clean stop")
    }

    /// Cuts the power, or restarts a store that accepts no more writes, or does nothing.
    fn after(
        &mut self,
        server: &mut Server,
        unreadable: bool,
        cut: bool,
    ) -> Result<&'static str, String> {
        if cut {
            // The server is killed already.
            self.disk.cut_power()?;
            self.cuts += 1;
            fsck(server.data(), "after a power cut")?;
            server.restart()?;
            return Ok("the power was cut");
        }
        let accepts_writes = self.runtime.block_on(accepts_writes(server))?;
        if accepts_writes && unreadable {
            server.stop()?;
            server.restart()?;
            return Ok("the server was restarted");
        }
        if accepts_writes {
            return Ok("the server accepted writes again");
        }
        self.poisoned += 1;
        server.stop()?;
        server.restart()?;
        Ok("the server accepted no more writes and was restarted")
    }

    /// Runs all clients for `time`, or prepares them without one. Then the server is killed, or all clients finish.
    fn run_clients(
        &mut self,
        server: &mut Server,
        ledgers: Vec<Ledger>,
        time: Duration,
        unreadable: bool,
        cut: bool,
    ) -> Result<(Vec<Ledger>, Arc<Phase>), String> {
        let phase = Arc::new(Phase {
            unreadable,
            ..Phase::default()
        });
        let address = server.address();
        let mut clients = JoinSet::new();
        let _in = self.runtime.enter();
        for (number, ledger) in (0_u64..).zip(ledgers) {
            let (choices, phase) = (Seeded::new(self.choices.bits()), Arc::clone(&phase));
            clients.spawn(async move {
                let worked = if time.is_zero() {
                    prepare(address, number).await.map(|()| ledger)
                } else {
                    work(address, number, ledger, choices, &phase).await
                };
                (
                    number,
                    worked.map_err(|why| format!("client {number}: {why}")),
                )
            });
        }
        let runtime = &self.runtime;
        let first = runtime.block_on(async {
            if time.is_zero() {
                return None;
            }
            // This is the length of the phase, not a wait for an event. A client that fails ends the phase early.
            let ended = tokio::time::timeout(time, clients.join_next()).await;
            ended.ok().flatten()
        });
        let mut ended: Vec<_> = first.into_iter().collect();
        if cut && ended.is_empty() {
            phase.killed.store(true, Ordering::SeqCst);
            server.kill();
        }
        phase.over.store(true, Ordering::SeqCst);
        self.disk.fail(Rates::default());
        runtime.block_on(async {
            while let Some(one) = clients.join_next().await {
                ended.push(one);
            }
        });
        let mut ledgers = Vec::new();
        for one in ended {
            let (number, ledger) = one.map_err(|e| format!("a client ended: {e}"))?;
            let ledger = ledger.map_err(|why| format!("{why}\nserver log:\n{}", server.log()))?;
            ledgers.push((number, ledger));
        }
        ledgers.sort_by_key(|(number, _)| *number);
        Ok((
            ledgers.into_iter().map(|(_, ledger)| ledger).collect(),
            phase,
        ))
    }

    fn check(&self, server: &Server, ledgers: Vec<Ledger>) -> Result<Vec<Ledger>, String> {
        let address = server.address();
        self.runtime.block_on(async {
            let mut clients = JoinSet::new();
            for (number, mut ledger) in (0_u64..).zip(ledgers) {
                clients.spawn(async move {
                    let client = Connection::connect(address).await?;
                    ledger
                        .check(&mut Pusher::new(client, &repository(number)))
                        .await?;
                    Ok::<_, String>((number, ledger))
                });
            }
            let mut ledgers = Vec::new();
            while let Some(one) = clients.join_next().await {
                ledgers.push(one.map_err(|e| format!("a check ended: {e}"))??);
            }
            ledgers.sort_by_key(|(number, _)| *number);
            Ok(ledgers.into_iter().map(|(_, ledger)| ledger).collect())
        })
    }
}

fn repository(number: u64) -> String {
    format!("faulty/client-{number}")
}

/// Pushes the blob that every manifest names, before anything fails.
async fn prepare(address: SocketAddr, number: u64) -> Result<(), String> {
    let client = Connection::connect(address).await?;
    Pusher::new(client, &repository(number)).empty_json().await
}

/// Runs one client. It ends with the phase, or with its connection after the power cut.
async fn work(
    address: SocketAddr,
    number: u64,
    mut ledger: Ledger,
    mut choices: Seeded,
    phase: &Phase,
) -> Result<Ledger, String> {
    let mut pusher = None;
    loop {
        let connected = match pusher.as_mut() {
            Some(connected) => connected,
            None => match Connection::connect(address).await {
                Ok(client) => pusher.insert(Pusher::new(client, &repository(number))),
                Err(_) if phase.killed.load(Ordering::SeqCst) => return Ok(ledger),
                Err(why) => return Err(why),
            },
        };
        let begun = Instant::now();
        let done = operation(connected, &mut ledger, &mut choices, phase.kind());
        let done = tokio::time::timeout(OPERATION_BOUND, done)
            .await
            .map_err(|_| format!("an operation without an end after {:?}", begun.elapsed()))?;
        match done {
            Ok(()) => {
                phase.done.fetch_add(1, Ordering::SeqCst);
            }
            Err(why) => {
                let ended = connected.client.ended();
                check_end(ended, phase).map_err(|how| format!("{how}: {why}"))?;
                pusher = None;
            }
        }
        if phase.over.load(Ordering::SeqCst) {
            return Ok(ledger);
        }
    }
}

/// Checks whether a request may end like this on a failing disk.
fn check_end(ended: Ended, phase: &Phase) -> Result<(), &'static str> {
    match ended {
        Ended::Answered(status) if status.is_server_error() => {
            phase.refused.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        // An answer whose body cannot be read to its end, an upload rejected before its end, or the kill.
        Ended::Broken => {
            phase.broken.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        // The manifest names a blob that could not be read.
        Ended::Answered(StatusCode::BAD_REQUEST) if phase.unreadable => {
            phase.refused.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        Ended::Answered(_) => Err("an answer that is wrong whatever the disk does"),
        Ended::Unfinished => Err("a request without an end"),
    }
}

/// Checks whether a small push succeeds on a disk without faults. Returns whether it did.
async fn accepts_writes(server: &Server) -> Result<bool, String> {
    let client = Connection::connect(server.address()).await?;
    let mut pusher = Pusher::new(client, "faulty/probe");
    match pusher.empty_json().await {
        Ok(()) => Ok(true),
        Err(_) if pusher.client.ended() == Ended::Answered(StatusCode::SERVICE_UNAVAILABLE) => {
            Ok(false)
        }
        Err(why) => Err(format!(
            "a push on a disk without faults: {why}\n{}",
            server.log()
        )),
    }
}
