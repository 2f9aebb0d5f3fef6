//! The peers as they were last known, on disk: what a node goes by that starts while the API server cannot be asked. The
//! file's time says when they were last known to be true, so that a quiet cluster costs no writing.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use node_network::ClusterSnapshot;
use node_network::cluster::{Freshness, NodeList, SourceKind, snapshot_from_objects};
use serde::Deserialize;
use tokio::time::Instant;

use super::nodes_text::parse_nodes;
use crate::atomic_file::{self, FileError};

/// 20,000 nodes of a few hundred bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Changes within this are written together.
const PAUSE: Duration = Duration::from_secs(10);
/// The file's time is at most so old while the API server is heard.
const CONFIRM: Duration = Duration::from_secs(60);

/// The file, and when it is due.
#[derive(Debug)]
pub(super) struct PeerCache {
    path: PathBuf,
    /// Something changed, and is to be written at this time.
    due: Option<Instant>,
    written: Option<Instant>,
    confirmed: Option<Instant>,
    /// The last attempt failed; told once.
    failed: bool,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) snapshot: ClusterSnapshot,
    /// The API server's version then, where it can be compared.
    pub(crate) version: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    metadata: HeadMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadMetadata {
    resource_version: String,
}

impl PeerCache {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, due: None, written: None, confirmed: None, failed: false }
    }

    /// The peers of an earlier run. A file that is none is as good as no file.
    pub(super) fn load(&self) -> Option<Cached> {
        match read(&self.path) {
            Ok(cached) => cached,
            Err(reason) => {
                tracing::warn!(path = %self.path.display(), reason, "the last known peers cannot be read");
                None
            }
        }
    }

    /// The snapshot is another one now.
    pub(super) fn changed(&mut self, now: Instant) {
        let earliest = self.written.map_or(now, |written| written + PAUSE);
        self.due.get_or_insert(earliest.max(now));
    }

    /// When there is something to write.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what is due.
    pub(super) fn write(&mut self, snapshot: &ClusterSnapshot, version: Option<u64>, now: Instant) {
        self.due = None;
        self.written = Some(now);
        self.confirmed = Some(now);
        let list = NodeList::new(snapshot, version.map(|version| version.to_string()).unwrap_or_default());
        let written = serde_json::to_vec(&list)
            .map_err(|error| FileError::new("write", &self.path, error.into()))
            .and_then(|bytes| atomic_file::replace(&self.path, &bytes, 0o644));
        self.tell(written);
    }

    /// What is in the file is true still.
    pub(super) fn confirm(&mut self, now: Instant) {
        let recent = self.confirmed.is_some_and(|confirmed| now < confirmed + CONFIRM);
        if self.due.is_some() || recent || self.written.is_none() {
            return;
        }
        self.confirmed = Some(now);
        let touch = || File::options().append(true).open(&self.path)?.set_modified(SystemTime::now());
        self.tell(touch().map_err(|source| FileError::new("confirm", &self.path, source)));
    }

    fn tell(&mut self, result: Result<(), FileError>) {
        let failed = result.is_err();
        if let Err(error) = result
            && !self.failed
        {
            tracing::warn!(%error, "the last known peers are not kept for the next start");
        }
        self.failed = failed;
    }
}

fn read(path: &Path) -> Result<Option<Cached>, String> {
    let Some(bytes) = atomic_file::read(path, MAX_BYTES).map_err(|error| error.to_string())? else {
        return Ok(None);
    };
    let modified = std::fs::metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|at| at.elapsed().ok()).unwrap_or_default();
    let head: Head = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let objects = parse_nodes(&bytes).map_err(|error| error.to_string())?;
    let freshness = Freshness::Cached { age_seconds: age.as_secs() };
    Ok(Some(Cached {
        snapshot: snapshot_from_objects(SourceKind::Kubernetes, freshness, objects),
        version: head.metadata.resource_version.parse().ok(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> ClusterSnapshot {
        let text = "{kind: Node, metadata: {name: node2}, spec: {podCIDRs: [10.244.2.0/24]}}";
        let objects = parse_nodes(text.as_bytes()).unwrap();
        snapshot_from_objects(SourceKind::Kubernetes, Freshness::Synced, objects)
    }

    #[test]
    fn what_is_kept_is_found_again_with_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let mut cache = PeerCache::new(path.clone());
        assert!(cache.load().is_none());
        cache.write(&snapshot(), Some(42), Instant::now());
        let hour_ago = SystemTime::now() - Duration::from_secs(3_600);
        File::options().append(true).open(&path).unwrap().set_modified(hour_ago).unwrap();
        let cached = cache.load().unwrap();
        assert_eq!((cached.version, &cached.snapshot.nodes), (Some(42), &snapshot().nodes));
        assert!(matches!(cached.snapshot.freshness, Freshness::Cached { age_seconds: 3_600..=3_700 }));
    }

    #[test]
    fn a_quiet_cluster_is_confirmed_without_being_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let mut cache = PeerCache::new(path.clone());
        let start = Instant::now();
        cache.write(&snapshot(), Some(42), start);
        let bytes = std::fs::read(&path).unwrap();
        let long_ago = SystemTime::UNIX_EPOCH;
        File::options().append(true).open(&path).unwrap().set_modified(long_ago).unwrap();
        cache.confirm(start + CONFIRM / 2);
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), long_ago);
        cache.confirm(start + CONFIRM);
        assert!(std::fs::metadata(&path).unwrap().modified().unwrap() > long_ago);
        assert_eq!(std::fs::read(&path).unwrap(), bytes);
    }

    #[test]
    fn a_burst_of_changes_is_one_write() {
        let mut cache = PeerCache::new("/nowhere/peers.json".into());
        let start = Instant::now();
        cache.changed(start);
        assert_eq!(cache.due(), Some(start));
        cache.due = None;
        cache.written = Some(start);
        for second in 1..5 {
            cache.changed(start + Duration::from_secs(second));
        }
        assert_eq!(cache.due(), Some(start + PAUSE));
    }

    #[test]
    fn a_damaged_file_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        for text in ["", "{", "{}", r#"{"kind":"Pod","metadata":{"resourceVersion":"1"}}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(PeerCache::new(path.clone()).load().is_none(), "{text}");
        }
    }
}
