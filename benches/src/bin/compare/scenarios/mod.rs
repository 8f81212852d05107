//! The scenarios, and what they share: sizes, members, the order of the rounds.
//!
//! Owns: [`ALL`], [`Bench`]. In each round every server is measured once, one after the other; the order is reversed
//! from round to round, because a server finds the machine as the one before left it.

mod cold_pull;
mod crowd;
mod finish;
mod hot_pull;
mod mixed_push;
mod parts;
mod pushes;
mod server_times;
mod small_gets;
mod start;
mod tls_pull;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;

use crate::content::Content;
use crate::fleet::{Fleet, Member, Per, Server};
use crate::limits::Limit;
use crate::load::job::Blob;
use crate::machine::free_bytes;
use crate::peers::Program;
use crate::report::{Report, Role, UNDER_TEST, Values};

pub use self::start::fill;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

type Scenario = fn(&mut Bench) -> Result<(), String>;

/// All scenarios by name, in the order in which they run.
pub const ALL: [(&str, Scenario); 11] = [
    ("hot-pull", hot_pull::run),
    ("parts", parts::run),
    ("cold-pull", cold_pull::run),
    ("tls-pull", tls_pull::run),
    ("small-gets", small_gets::run),
    ("large-push", pushes::large),
    ("small-push", pushes::small),
    ("mixed-push", mixed_push::run),
    ("finish", finish::run),
    ("start", start::run),
    ("crowd", crowd::run),
];

/// How much a run measures.
#[derive(Debug, Clone)]
pub struct Sizes {
    pub quick: bool,
    pub rounds: usize,
    pub cold_rounds: usize,
    /// The large blob of most scenarios.
    pub large: u64,
    /// How often a pull of it is repeated in one measurement.
    pub repeat: u64,
    pub parts: u64,
    /// How long small requests and small pushes are measured in each round, in seconds.
    pub small_seconds: f64,
    pub finish: [u64; 3],
    pub start: Vec<u64>,
    pub crowd: u64,
}

impl Sizes {
    pub fn full() -> Self {
        Self {
            quick: false,
            rounds: 5,
            cold_rounds: 9,
            large: 4 * GIB,
            repeat: 1,
            parts: 8 * GIB,
            small_seconds: 10.0,
            finish: [GIB, 8 * GIB, 32 * GIB],
            start: vec![1_000_000],
            crowd: 2 * GIB,
        }
    }

    pub fn quick() -> Self {
        Self {
            quick: true,
            rounds: 3,
            cold_rounds: 3,
            large: 256 * MIB,
            repeat: 6,
            parts: GIB,
            small_seconds: 1.0,
            finish: [64 * MIB, 256 * MIB, GIB],
            start: vec![100_000],
            crowd: 64 * MIB,
        }
    }

    pub fn describe(&self) -> String {
        let mib = |bytes: u64| bytes / MIB;
        format!(
            "{} rounds ({} cold); large blob {} MiB, pulled {} times hot; parts of {} MiB; small requests for {} s; \
             201 after {:?} MiB; start with {:?} blobs; crowd of {} MiB each",
            self.rounds,
            self.cold_rounds,
            mib(self.large),
            self.repeat,
            mib(self.parts),
            self.small_seconds,
            self.finish.map(mib),
            self.start,
            mib(self.crowd)
        )
    }
}

/// A run.
pub struct Bench {
    pub sizes: Sizes,
    pub programs: Vec<Program>,
    /// The folder on the disk that is measured.
    pub folder: PathBuf,
    pub report: Report,
    /// The seed of the next content; never used twice.
    pub next_seed: u64,
}

/// The figures of one server in one round: the case, its unit, the values.
pub type Measured = Vec<(&'static str, Per, Values)>;

impl Bench {
    /// Returns new content.
    pub fn content(&mut self, length: u64) -> Content {
        self.next_seed += 1;
        Content {
            seed: self.next_seed,
            length,
        }
    }

    /// Returns new content with its digest, computed now.
    pub fn blob(&mut self, length: u64) -> Blob {
        let content = self.content(length);
        Blob {
            digest: Some(content.digest()),
            content,
        }
    }

    /// Returns a seed from which many can be counted.
    pub fn seeds(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed << 32
    }

    pub fn program(&self) -> Result<Program, String> {
        self.programs
            .first()
            .cloned()
            .ok_or_else(|| "no program".into())
    }

    pub fn members(&self, limits: &[Limit]) -> Vec<Member> {
        let registries = self.programs.iter().cloned().map(Member::Registry);
        registries
            .chain(limits.iter().copied().map(Member::Limit))
            .collect()
    }

    pub fn only_tonnage(&self, limits: &[Limit]) -> Vec<Member> {
        let registries = self.programs.iter().take(1).cloned().map(Member::Registry);
        registries
            .chain(limits.iter().copied().map(Member::Limit))
            .collect()
    }

    pub fn fleet(
        &mut self,
        scenario: &str,
        members: &[Member],
        tls: bool,
    ) -> Result<Fleet, String> {
        let mut missing = Vec::new();
        let fleet = Fleet::start(&self.folder, members, tls, &mut missing);
        missing
            .iter()
            .for_each(|why| self.report.skip(scenario, why));
        fleet
    }

    /// Fails if the disk has less than `bytes` free.
    pub fn need_space(&self, bytes: u64) -> Result<(), String> {
        let free = free_bytes(&self.folder)?;
        // A store keeps some space for deletes.
        let needed = bytes + 2 * GIB;
        if free < needed {
            let gib = |bytes| bytes as f64 / GIB as f64;
            return Err(format!(
                "needs {:.0} GiB of free space, there are {:.0}",
                gib(needed),
                gib(free)
            ));
        }
        Ok(())
    }

    /// Measures all servers of a fleet in these rounds, of which every second has the reverse order.
    pub fn rounds(
        &mut self,
        scenario: &str,
        rounds: Range<usize>,
        fleet: &Fleet,
        one: impl Fn(&Server) -> Result<Measured, String>,
    ) -> Result<(), String> {
        let all: Vec<&Server> = fleet.servers.iter().collect();
        self.each(scenario, rounds, &all, |_, server, _| {
            one(server).map(|measured| (server.role, measured))
        })
    }

    /// Measures each member in every round on a new folder, where it runs alone.
    pub fn fresh_rounds(
        &mut self,
        scenario: &str,
        rounds: usize,
        members: &[Member],
        one: impl Fn(&Server, usize) -> Result<Measured, String>,
    ) -> Result<(), String> {
        let all: Vec<&Member> = members.iter().collect();
        self.each(scenario, 0..rounds, &all, |bench, member, round| {
            let mut missing = Vec::new();
            let fleet = Fleet::start(
                &bench.folder,
                std::slice::from_ref(member),
                false,
                &mut missing,
            )?;
            let server = fleet.servers.first().ok_or_else(|| missing.join("; "))?;
            rustix::fs::sync();
            one(server, round).map(|measured| (server.role, measured))
        })
    }

    fn each<T: Named>(
        &mut self,
        scenario: &str,
        rounds: Range<usize>,
        all: &[&T],
        one: impl Fn(&Self, &T, usize) -> Result<(Role, Measured), String>,
    ) -> Result<(), String> {
        let mut failed = BTreeSet::new();
        for round in rounds {
            let mut order = all.to_vec();
            if round % 2 == 1 {
                order.reverse();
            }
            for server in order {
                let name = server.name().to_owned();
                if failed.contains(&name) {
                    continue;
                }
                match one(self, server, round) {
                    Ok((role, measured)) => measured.into_iter().for_each(|(case, per, values)| {
                        self.report.add(scenario, case, per, (&name, role), values);
                    }),
                    Err(why) if name == UNDER_TEST => return Err(why),
                    Err(why) => {
                        self.report.remove(scenario, &name);
                        self.report.skip(scenario, &why);
                        failed.insert(name);
                    }
                }
            }
        }
        Ok(())
    }
}

trait Named {
    fn name(&self) -> &str;
}

impl Named for Server {
    fn name(&self) -> &str {
        &self.name
    }
}

impl Named for Member {
    fn name(&self) -> &str {
        Self::name(self)
    }
}
