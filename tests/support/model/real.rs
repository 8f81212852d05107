//! Histories on a store in a real directory.
//!
//! Owns: [`run`]. The machine decides the order of events here, so a seed does not replay exactly; the checks do not
//! depend on it. A life that ends without a close drops the store, as a program that ends does.

use std::path::Path;

use tonnage_engine::Store;
use tonnage_engine::fsck::{self, FsckOptions};
use tonnage_engine::io::Env;

use super::drive::{self, Left};
use super::found;
use super::generate::{self, History};
use super::operation::Operation;
use super::record::Shared;
use super::recover::{Found, Violation};
use super::state::Model;
use super::timeline::Timeline;

/// Runs a history in `folder`, with `env` giving each life its own machine. Faults and waits are left out.
pub async fn run(history: &History, folder: &Path, env: impl Fn() -> Env) -> Result<(), Violation> {
    let path = folder.join("store");
    let (mut model, mut lsn) = (Model::default(), 0);
    let mut left: Vec<Left> = Vec::new();
    for life in &history.lives {
        let (record, env) = (Shared::default(), env());
        let options = history.options();
        let grace = options.collection_grace;
        let failed =
            |check| move |error: tonnage_engine::Error| Violation::new(check, error.to_string());
        let opened = Store::open(env.clone(), &path, options).await;
        let (store, report) = opened.map_err(failed("open"))?;
        let mut clients = life.clients.clone();
        for calls in &mut clients {
            calls.retain(|call| !matches!(call.operation, Operation::Wait(_)));
        }
        left = drive::run_clients(&store, &env, &record, grace, &clients, &left).await;
        let mut seen = found::snapshot(&store).await.map_err(failed("names"))?;
        for digest in generate::universe(history).into_keys() {
            if store
                .view()
                .read(|view| view.blob(&digest))
                .await
                .map_err(failed("names"))?
                .is_some()
            {
                seen.stored.insert(digest);
            }
        }
        let usages = found::usages(&store).await.map_err(failed("usage"))?;
        usages.map_err(|what| Violation::new("usage", what))?;
        if life.closed {
            store.close().await.map_err(failed("close"))?;
        }
        drop(store);
        let checked = until_unlocked(&env, &path).await?;
        let found = Found {
            lsn: checked.lsn.0,
            model: seen,
            uploads: std::collections::BTreeMap::new(),
            report,
            torn_checkpoint: false,
        };
        if !checked.is_sound() {
            return Err(Violation::new(
                "fsck after",
                format!("{:?}", checked.findings),
            ));
        }
        let record = record.0.lock();
        let timeline = Timeline::new(&model, lsn, &record, false)?;
        timeline.check(&found, u64::MAX)?;
        (model, lsn) = (found.model, found.lsn);
    }
    Ok(())
}

/// Runs `fsck` once the dropped store has released the lock.
async fn until_unlocked(env: &Env, path: &Path) -> Result<fsck::FsckReport, Violation> {
    loop {
        match fsck::check(env, path, FsckOptions { deep: true }, &|_, _| {}).await {
            Ok(report) => return Ok(report),
            Err(tonnage_engine::Error::Locked { .. }) => tokio::task::yield_now().await,
            Err(error) => return Err(Violation::new("fsck after", error.to_string())),
        }
    }
}
