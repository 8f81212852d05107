//! Shrinks a history that fails.
//!
//! Owns: [`shrink`], which removes lives, clients, faults and calls as long as the same check fails. The calls of a
//! history contain everything that it needs, so each shorter one is a history too.

use super::generate::History;
use super::sweep::{Depth, Failure, sweep};

/// Returns the shortest failing history found within `attempts`, with its failure.
pub fn shrink(
    history: &History,
    failure: Failure,
    depth: Depth,
    attempts: usize,
) -> (History, Failure) {
    let (mut best, mut failure) = (history.clone(), failure);
    let mut left = attempts;
    // Lives after the failing one do not matter.
    best.lives.truncate(failure.life);
    let mut size = usize::MAX;
    while left > 0 && calls(&best) < size {
        size = calls(&best);
        for candidate in shorter(&best) {
            if left == 0 {
                break;
            }
            left -= 1;
            let swept = sweep(&candidate, depth);
            if let Some(found) = swept.failure
                && found.violation.check == failure.violation.check
            {
                (best, failure) = (candidate, found);
                break;
            }
        }
    }
    (best, failure)
}

fn calls(history: &History) -> usize {
    let parts = history
        .lives
        .iter()
        .map(|life| 1 + life.faults.len() + life.clients.len());
    history.calls().count() + parts.sum::<usize>()
}

/// Returns histories with a part removed, the largest parts first.
fn shorter(history: &History) -> Vec<History> {
    let mut all = Vec::new();
    for life in 0..history.lives.len().saturating_sub(1) {
        let mut without = history.clone();
        without.lives.remove(life);
        all.push(without);
    }
    for life in 0..history.lives.len() {
        for client in 0..history.lives[life].clients.len() {
            let mut without = history.clone();
            without.lives[life].clients.remove(client);
            all.push(without);
        }
        for fault in 0..history.lives[life].faults.len() {
            let mut without = history.clone();
            without.lives[life].faults.remove(fault);
            all.push(without);
        }
    }
    for part in [4, 2, 1] {
        for life in 0..history.lives.len() {
            for client in 0..history.lives[life].clients.len() {
                let count = history.lives[life].clients[client].len();
                for from in (0..count).step_by(part) {
                    let mut without = history.clone();
                    let to = (from + part).min(count);
                    without.lives[life].clients[client].drain(from..to);
                    all.push(without);
                }
            }
        }
    }
    all
}

/// Returns a history as text, one call a line.
pub fn describe(history: &History) -> String {
    let mut text = format!(
        "history of seed {}{}{}{}\n",
        history.seed,
        if history.roomy { ", roomy" } else { "" },
        if history.tight { ", tight" } else { "" },
        if history.poor { ", poor" } else { "" },
    );
    for (number, life) in history.lives.iter().enumerate() {
        let end = if life.closed { "closed" } else { "stopped" };
        text += &format!(
            " life {}, {end} in the end, slow: {}, room: {:?}, faults: {:?}\n",
            number + 1,
            life.slow,
            life.room,
            life.faults
        );
        for (client, calls) in life.clients.iter().enumerate() {
            for call in calls {
                text += &format!(
                    "  client {client}: {} {:?}\n",
                    call.repository, call.operation
                );
            }
        }
    }
    text
}
