//! Repositories and tags, asked of the server that has the store open or of the closed store.
//!
//! Owns: [`Names`], who is asked, and what is said about names that are not there.
//! Refuses: printing results; the commands do.
//!
//! A list that began with a server goes on with it: its pages are not mixed with what a closed store says.

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tonnage_engine::io::Env;
use tonnage_engine::{ClosedStore, Error, Options, Store};
use tonnage_server::operator::{
    self, DeleteRepository, DeleteTags, DeletedTags, Holdings, ListRepositories, ListTags, Missing,
    Refusal, RepositoryPage, TagEntry, TagPage,
};
use tonnage_server::{
    DELETE_REPOSITORY_PATH, DELETE_TAGS_PATH, LIST_REPOSITORIES_PATH, LIST_TAGS_PATH,
};

use crate::config;
use crate::config::flags::ConfigFlags;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::online::Socket;

/// Where a command finds its store.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// Ask the server with this socket [default: the one in the data directory]
    #[arg(long, value_name = "PATH")]
    server: Option<String>,
    #[command(flatten)]
    flags: ConfigFlags,
}

/// A store's names.
pub(crate) struct Names {
    env: Env,
    data: PathBuf,
    options: Options,
    socket: Socket,
    /// Nobody has it open; read at the first page.
    closed: Option<ClosedStore>,
    /// A server answered.
    online: bool,
}

impl Names {
    /// The names of the store that the command line means.
    pub(crate) fn of(place: &Where, env: Env) -> Result<Self, Failure> {
        let config = config::load(&place.flags).without_mistakes()?.config;
        let data = config.data()?;
        Ok(Self {
            env,
            socket: Socket::find(place.server.as_deref(), &data)?,
            options: config.store,
            data,
            closed: None,
            online: false,
        })
    }

    /// A page of repositories.
    pub(crate) async fn repositories(
        &mut self,
        asked: &ListRepositories,
    ) -> Result<RepositoryPage, Failure> {
        if let Some(page) = self.ask(LIST_REPOSITORIES_PATH, asked).await? {
            return Ok(page);
        }
        let outcome = operator::repositories(self.read().await?.view(), asked).await;
        outcome.map_err(|refusal| self.refused(refusal))
    }

    /// A page of a repository's tags.
    pub(crate) async fn tags(&mut self, asked: &ListTags) -> Result<TagPage, Failure> {
        if let Some(page) = self.ask(LIST_TAGS_PATH, asked).await? {
            return Ok(page);
        }
        let outcome = operator::tags(self.read().await?.view(), asked).await;
        outcome.map_err(|refusal| self.refused(refusal))
    }

    /// Deletes a repository, or tells what it holds.
    pub(crate) async fn delete_repository(
        &mut self,
        asked: &DeleteRepository,
    ) -> Result<Holdings, Failure> {
        if let Some(held) = self.ask(DELETE_REPOSITORY_PATH, asked).await? {
            return Ok(held);
        }
        let name = asked.repository.as_str();
        if asked.dry_run {
            let outcome = operator::holdings(self.read().await?.view(), name).await;
            return outcome.map_err(|refusal| self.refused(refusal));
        }
        self.change(async |store| operator::delete_repository(store, name).await)
            .await
    }

    /// Deletes tags, or tells what they point at.
    pub(crate) async fn delete_tags(
        &mut self,
        asked: &DeleteTags,
    ) -> Result<Vec<TagEntry>, Failure> {
        if let Some(DeletedTags { tags }) = self.ask(DELETE_TAGS_PATH, asked).await? {
            return Ok(tags);
        }
        let (name, tags) = (asked.repository.as_str(), asked.tags.as_slice());
        if asked.dry_run {
            let outcome = operator::find_tags(self.read().await?.view(), name, tags).await;
            return outcome.map_err(|refusal| self.refused(refusal));
        }
        self.change(async |store| operator::delete_tags(store, name, tags).await)
            .await
    }

    /// What the server says; `None` if the store is closed.
    async fn ask<T: DeserializeOwned>(
        &mut self,
        path: &str,
        question: &impl Serialize,
    ) -> Result<Option<T>, Failure> {
        if self.closed.is_some() {
            return Ok(None);
        }
        let answer = self.socket.ask(path, question).await?;
        if answer.is_none() && self.online {
            return Err(Failure::new(
                Exit::Network,
                "the server stopped in the middle of the list",
            )
            .next("ask again"));
        }
        self.online |= answer.is_some();
        Ok(answer)
    }

    async fn read(&mut self) -> Result<&ClosedStore, Failure> {
        let closed = match self.closed.take() {
            Some(closed) => closed,
            None => ClosedStore::read(self.env.clone(), &self.data)
                .await
                .map_err(|error| Failure::of_store(&error, &self.data))?,
        };
        Ok(self.closed.insert(closed))
    }

    /// Opens the closed store, changes it and closes it again.
    async fn change<T>(
        &self,
        change: impl AsyncFnOnce(&Store) -> Result<T, Refusal>,
    ) -> Result<T, Failure> {
        let failed = |error: Error| Failure::of_store(&error, &self.data);
        let store = Store::open_existing(self.env.clone(), &self.data, self.options.clone()).await;
        let (store, _) = store.map_err(failed)?;
        let outcome = change(&store).await;
        let closed = store.close().await;
        let done = outcome.map_err(|refusal| self.refused(refusal))?;
        closed.map_err(failed)?;
        Ok(done)
    }

    fn refused(&self, refusal: Refusal) -> Failure {
        match refusal {
            Refusal::Missing(missing) => not_found(&missing, &self.socket.place()),
            Refusal::Failed(error) => Failure::of_store(&error, &self.data),
        }
    }
}

/// What is said about names that are not there; `place` are the options that lead to the same store again.
pub(crate) fn not_found(missing: &Missing, place: &str) -> Failure {
    let Missing { repository, tags } = missing;
    if tags.is_empty() {
        let what = format!("there is no repository {repository}; nothing was done");
        return Failure::new(Exit::NotFound, what)
            .next(format!("to see all: tonnage repo list {place}"));
    }
    let what = format!(
        "{repository} has no tag {}; nothing was done",
        tags.join(", no tag ")
    );
    Failure::new(Exit::NotFound, what).next(format!(
        "to see all it has: tonnage tag list {repository} {place}"
    ))
}

/// A wall-clock time as RFC 3339 UTC.
pub(crate) fn time(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).ok();
    let at = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    at.map_or_else(|| format!("{unix_ms} ms after 1970"), |at| at.to_string())
}
