//! What a gateway must not forget, in a file: a redb database with one table, from bytes to bytes.
//!
//! What is committed is on the disk, whatever happens to the process or the machine afterwards. A commit that fails does not stop
//! the gateway, which may be the only link there is: what could not be written is kept and tried again with what comes later,
//! and until then a restart knows the state of the last commit that succeeded. From that, observers hear some events again, and
//! requests of that time may be passed on again; nothing is lost that was stored before. What waits is bounded in bytes, and what
//! observers need has a room of its own, which requests, many and with whole bodies, cannot fill.
//!
//! A commit waits for the disk, and with it the task that owns the machine: nothing may be done before what it depends on is
//! written. On the links that this is for, that is the least of all waits.

use std::collections::BTreeMap;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use redb::Database;
use redb::DatabaseError;
use redb::ReadableDatabase;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::backends::FileBackend;
use serde::Serialize;
use thiserror::Error;
use tracing::error;
use tracing::info;

use crate::coap::Instant;

/// A file of records.
pub struct Store {
    path: PathBuf,
    /// None after a commit that failed: redb takes nothing more from a database whose file could not be written.
    database: Option<Database>,
    /// What is to be written by the next commit.
    requests: Pending,
    keys: Pending,
    others: Pending,
    /// Bytes that may wait in each room.
    room: usize,
    failed: Option<Instant>,
    counters: Counters,
}

/// A record: its key and its value.
pub type Record = (Vec<u8>, Vec<u8>);

/// Where a record waits for its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// With those of requests, which are soon of no use any more.
    Requests,
    /// With those of devices' keys, of which there are few, and none may be lost.
    Keys,
    /// With all others.
    Others,
}

/// What a store has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Commits that succeeded.
    pub commits: u64,
    /// Commits that failed.
    pub failures: u64,
    /// Changes of requests' records that the file will not know, because too much waited for a commit.
    pub lost_requests: u64,
    /// The same of all other records.
    pub lost_others: u64,
}

/// Why a file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("another process uses it")]
    Locked,
    /// Others may read it, or write to it; holds its permissions. Access tokens are in it.
    #[error("others than its owner may use it (mode {0:03o}), and access tokens are in it")]
    Permissions(u32),
    /// What the system says.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What the database says: it is none, or damaged.
    #[error(transparent)]
    Database(#[from] Box<redb::Error>),
}

impl Store {
    const TABLE: TableDefinition<'static, &'static [u8], &'static [u8]> = TableDefinition::new("memory");
    /// Memory for pages of the file; the records are read once, at the start.
    const CACHE: usize = 1 << 20;
    /// After a commit that failed none is tried for this long.
    const REST: Duration = Duration::from_secs(10);
    /// Bytes that wait for a commit in each room. Beyond that those that came last are lost to the file.
    const PENDING: usize = 64 << 20;

    /// Opens the file, and makes it for its owner alone where there is none.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let database = open(path)?;
        Ok(Self {
            path: path.to_owned(),
            database: Some(database),
            requests: Pending::default(),
            keys: Pending::default(),
            others: Pending::default(),
            room: Self::PENDING,
            failed: None,
            counters: Counters::default(),
        })
    }

    /// All that was committed.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn records(&self) -> Result<Vec<Record>, StoreError> {
        let Some(database) = &self.database else { return Ok(Vec::new()) };
        read(database).map_err(|error| StoreError::Database(Box::new(error)))
    }

    /// Takes a record for the next commit; none takes the key's record away. Where too much waits already that is written first.
    pub fn put(&mut self, room: Room, key: Vec<u8>, value: Option<Vec<u8>>, now: Instant) {
        if self.pending(room).bytes_with(&key, value.as_deref()) > self.room {
            self.commit(now);
        }
        if room == Room::Keys || self.pending(room).bytes_with(&key, value.as_deref()) <= self.room {
            return self.pending(room).insert(key, value);
        }
        match room {
            Room::Requests => self.counters.lost_requests += 1,
            Room::Keys | Room::Others => self.counters.lost_others += 1,
        }
    }

    /// Writes all that was taken: once this returns it is on the disk, or the failure is told and counted.
    pub fn commit(&mut self, now: Instant) {
        let all = [&self.requests, &self.keys, &self.others];
        let nothing = all.iter().all(|pending| pending.changes.is_empty());
        if nothing || self.failed.is_some_and(|failed| now.since(failed) < Self::REST) {
            return;
        }
        match self.write() {
            Ok(()) => {
                self.counters.commits += 1;
                (self.requests, self.keys, self.others) = Default::default();
                if self.failed.take().is_some() {
                    info!(file = %self.path.display(), "state is written again");
                }
            }
            Err(error) => {
                self.counters.failures += 1;
                self.database = None;
                if self.failed.replace(now).is_none() {
                    error!(file = %self.path.display(), %error, "state cannot be written: a restart would not know it");
                }
            }
        }
    }

    /// Whether records of keys wait that could not be written: until they are, nothing may be sealed with these keys, or opened.
    pub fn lacks_keys(&self) -> bool {
        !self.keys.changes.is_empty()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn pending(&mut self, room: Room) -> &mut Pending {
        match room {
            Room::Requests => &mut self.requests,
            Room::Keys => &mut self.keys,
            Room::Others => &mut self.others,
        }
    }

    fn write(&mut self) -> Result<(), StoreError> {
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(open(&self.path)?),
        };
        let changes = self.keys.changes.iter().chain(&self.others.changes).chain(&self.requests.changes);
        write(database, changes).map_err(|error| StoreError::Database(Box::new(error)))
    }
}

/// What waits for a commit in one room.
#[derive(Debug, Default)]
struct Pending {
    changes: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

impl Pending {
    /// What a change takes up beside its bytes, roughly.
    const BESIDE: usize = 64;

    /// The bytes of all, with this change in the place of the one before it.
    fn bytes_with(&self, key: &[u8], value: Option<&[u8]>) -> usize {
        let before = self.changes.get(key).map_or(0, |before| size(key, before.as_deref()));
        self.bytes - before + size(key, value)
    }

    fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes = self.bytes_with(&key, value.as_deref());
        self.changes.insert(key, value);
    }
}

fn size(key: &[u8], value: Option<&[u8]>) -> usize {
    key.len() + value.map_or(0, <[u8]>::len) + Pending::BESIDE
}

fn read(database: &Database) -> Result<Vec<Record>, redb::Error> {
    let table = match database.begin_read()?.open_table(Store::TABLE) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut records = Vec::new();
    for record in table.iter()? {
        let (key, value) = record?;
        records.push((key.value().to_vec(), value.value().to_vec()));
    }
    Ok(records)
}

fn write<'a>(
    database: &Database,
    changes: impl Iterator<Item = (&'a Vec<u8>, &'a Option<Vec<u8>>)>,
) -> Result<(), redb::Error> {
    // A transaction is durable by default: it is on the disk when `commit` returns.
    let transaction = database.begin_write()?;
    {
        let mut table = transaction.open_table(Store::TABLE)?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<Database, StoreError> {
    let file = open_file(path)?;
    let database = |error: DatabaseError| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked,
        error => StoreError::Database(Box::new(error.into())),
    };
    let backend = FileBackend::new(file).map_err(database)?;
    let mut builder = Database::builder();
    // A file that something else has written to is an error then, and no panic later.
    builder.set_cache_size(Store::CACHE).set_check_integrity_on_open(true);
    builder.create_with_backend(backend).map_err(database)
}

fn open_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let mut fresh = options.clone();
    fresh.create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut fresh, 0o600);
    match fresh.open(path) {
        Ok(file) => {
            // The file's name is to outlast a power failure as its content does.
            #[cfg(unix)]
            File::open(path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new(".")))?
                .sync_all()?;
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = options.open(path)?;
            check_permissions(&file)?;
            Ok(file)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(unix)]
fn check_permissions(file: &File) -> Result<(), StoreError> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(StoreError::Permissions(mode)) }
}

#[cfg(not(unix))]
fn check_permissions(_: &File) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own that goes with the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("lowband-store-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&path);
            std::fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("state")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    fn put(store: &mut Store, key: &[u8], value: Option<&[u8]>) {
        store.put(Room::Others, key.to_vec(), value.map(<[u8]>::to_vec), at(0));
    }

    #[test]
    fn what_was_committed_is_there_again_and_nothing_else() {
        let directory = Directory::new("committed");
        let mut store = Store::open(&directory.file()).unwrap();
        assert_eq!(store.records().unwrap(), []);
        put(&mut store, b"a", Some(b"1"));
        put(&mut store, b"b", Some(b"2"));
        store.commit(at(0));
        put(&mut store, b"a", None);
        put(&mut store, b"b", Some(b"3"));
        store.commit(at(0));
        put(&mut store, b"c", Some(b"4"));
        assert_eq!(store.counters(), Counters { commits: 2, failures: 0, ..Counters::default() });
        drop(store);
        let store = Store::open(&directory.file()).unwrap();
        assert_eq!(store.records().unwrap(), [(b"b".to_vec(), b"3".to_vec())]);
    }

    #[test]
    fn file_in_use_is_refused() {
        let directory = Directory::new("locked");
        let _store = Store::open(&directory.file()).unwrap();
        assert!(matches!(Store::open(&directory.file()).err(), Some(StoreError::Locked)));
    }

    #[test]
    fn file_that_is_no_database_is_an_error() {
        let directory = Directory::new("other");
        open_file(&directory.file()).unwrap();
        std::fs::write(directory.file(), "something else, of some length").unwrap();
        assert!(matches!(Store::open(&directory.file()).err(), Some(StoreError::Database(_))));
    }

    #[cfg(unix)]
    #[test]
    fn file_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = Directory::new("mode");
        drop(Store::open(&directory.file()).unwrap());
        let mode = || std::fs::metadata(directory.file()).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(directory.file(), PermissionsExt::from_mode(0o640)).unwrap();
        assert!(matches!(Store::open(&directory.file()).err(), Some(StoreError::Permissions(0o640))));
    }

    /// A store whose file is gone, and its place taken.
    fn broken(directory: &Directory) -> Store {
        let mut store = Store::open(&directory.file()).unwrap();
        store.database = None;
        std::fs::remove_file(directory.file()).unwrap();
        std::fs::create_dir(directory.file()).unwrap();
        store
    }

    #[test]
    fn what_could_not_be_written_is_written_later() {
        let directory = Directory::new("later");
        let mut store = broken(&directory);
        put(&mut store, b"b", Some(b"2"));
        store.commit(at(1));
        store.commit(at(2));
        assert_eq!(store.counters(), Counters { failures: 1, ..Counters::default() });
        std::fs::remove_dir(directory.file()).unwrap();
        store.commit(at(10));
        assert_eq!(store.counters(), Counters { failures: 1, ..Counters::default() });
        store.commit(at(11));
        assert_eq!(store.counters(), Counters { commits: 1, failures: 1, ..Counters::default() });
        assert_eq!(store.records().unwrap(), [(b"b".to_vec(), b"2".to_vec())]);
    }

    #[test]
    fn requests_that_wait_take_no_room_from_observers_and_their_loss_is_counted() {
        let directory = Directory::new("room");
        let mut store = broken(&directory);
        store.room = 10_000;
        let body = vec![7; store.room / 4];
        let mut put = |room, key: &[u8], value: Option<Vec<u8>>| store.put(room, key.to_vec(), value, at(1));
        put(Room::Requests, b"small", Some(vec![1]));
        for request in 0..10 {
            put(Room::Requests, &[request], Some(body.clone()));
        }
        put(Room::Others, b"observer", Some(vec![1]));
        put(Room::Others, b"observer", Some(vec![2]));
        // What takes less than before always fits, and makes room.
        put(Room::Requests, &[0], None);
        put(Room::Requests, &[10], Some(body[1_000..].to_vec()));
        assert!(store.requests.bytes <= store.room);
        assert_eq!(store.counters(), Counters { failures: 1, lost_requests: 7, ..Counters::default() });
        std::fs::remove_dir(directory.file()).unwrap();
        store.commit(at(11));
        let records = store.records().unwrap();
        let kept: Vec<_> = records.iter().map(|(key, value)| (key.as_slice(), value.len())).collect();
        let whole = body.len();
        let expected: [(&[u8], usize); 5] =
            [(&[1], whole), (&[2], whole), (&[10], whole - 1_000), (b"observer", 1), (b"small", 1)];
        assert_eq!(kept, expected);
        assert_eq!((store.requests.bytes, store.others.bytes), (0, 0));
    }

    #[test]
    fn keys_have_always_room_and_are_known_to_be_missing_until_they_are_written() {
        let directory = Directory::new("keys");
        let mut store = broken(&directory);
        store.room = 100;
        for key in 0..10 {
            store.put(Room::Keys, vec![key], Some(vec![key; 50]), at(1));
        }
        store.commit(at(1));
        assert!(store.lacks_keys());
        std::fs::remove_dir(directory.file()).unwrap();
        store.commit(at(11));
        assert!(!store.lacks_keys());
        assert_eq!(store.records().unwrap().len(), 10);
        assert_eq!((store.counters().lost_requests, store.counters().lost_others), (0, 0));
    }

    #[test]
    fn more_than_the_room_holds_is_written_in_several_commits() {
        let directory = Directory::new("several");
        let mut store = Store::open(&directory.file()).unwrap();
        store.room = 10_000;
        for record in 0..5 {
            store.put(Room::Others, vec![record], Some(vec![record; 2_500]), at(0));
        }
        store.commit(at(0));
        assert_eq!(store.counters(), Counters { commits: 2, ..Counters::default() });
        assert_eq!(store.records().unwrap().len(), 5);
    }
}
