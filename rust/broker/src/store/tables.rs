//! The tables, and what changes in them.

use std::collections::HashMap;

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError, WriteTransaction};

/// One change. Deliveries are numbered across all clients.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// A session is kept, or is not as it was.
    Session { client: String, record: Vec<u8> },
    /// A session has subscribed.
    Subscribed { client: String, filter: String, record: Vec<u8> },
    /// A session has unsubscribed.
    Unsubscribed { client: String, filter: String },
    /// A session has ended, with all that belongs to it.
    Ended { client: String },
    /// A message goes to clients. It is kept under the number of the first delivery.
    Message { record: Vec<u8>, deliveries: Vec<Delivery> },
    /// A delivery is not as it was. One that is gone stays gone.
    Delivery(Delivery),
    /// A client has a message, or will never get it.
    Taken { client: String, number: u64 },
    /// The retained message of a topic; `None`: there is none any more.
    Retained { topic: String, record: Option<Vec<u8>> },
}

/// A message for a client.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) client: String,
    pub(crate) number: u64,
    pub(crate) record: Vec<u8>,
}

impl Change {
    pub(super) fn size(&self) -> usize {
        let own = match self {
            Self::Message { record, deliveries } => {
                record.len() + deliveries.iter().map(|one| one.record.len() + ROW).sum::<usize>()
            }
            Self::Session { record, .. } | Self::Subscribed { record, .. } => record.len(),
            Self::Retained { record, .. } => record.as_ref().map_or(0, Vec::len),
            Self::Delivery(delivery) => delivery.record.len(),
            Self::Unsubscribed { .. } | Self::Ended { .. } | Self::Taken { .. } => 0,
        };
        own + ROW
    }
}

/// All that a store holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) sessions: Vec<(String, Vec<u8>)>,
    pub(crate) subscriptions: HashMap<String, Vec<(String, Vec<u8>)>>,
    /// By client, in the order of their numbers; of each the number of its message.
    pub(crate) deliveries: HashMap<String, Vec<(u64, u64, Vec<u8>)>>,
    pub(crate) messages: HashMap<u64, Vec<u8>>,
    pub(crate) retained: Vec<(String, Vec<u8>)>,
    /// The number of the next delivery.
    pub(crate) next: u64,
}

/// Reads everything. A store that is new gets its tables.
pub(super) fn read(database: &Database) -> Result<Contents, redb::Error> {
    prepare(database)?;
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for row in transaction.open_table(SESSIONS)?.iter()? {
        let (client, record) = row?;
        contents.sessions.push((client.value().into(), record.value().into()));
    }
    for row in transaction.open_table(SUBSCRIPTIONS)?.iter()? {
        let (key, record) = row?;
        let (client, filter) = key.value();
        let of_client = contents.subscriptions.entry(client.into()).or_default();
        of_client.push((filter.into(), record.value().into()));
    }
    for row in transaction.open_table(DELIVERIES)?.iter()? {
        let (key, row) = row?;
        let ((client, number), (message, record)) = (key.value(), row.value());
        let of_client = contents.deliveries.entry(client.into()).or_default();
        of_client.push((number, message, record.into()));
        contents.next = contents.next.max(number + 1);
    }
    for row in transaction.open_table(MESSAGES)?.iter()? {
        let (number, record) = row?;
        contents.messages.insert(number.value(), record.value().into());
        contents.next = contents.next.max(number.value() + 1);
    }
    for row in transaction.open_table(RETAINED)?.iter()? {
        let (topic, record) = row?;
        contents.retained.push((topic.value().into(), record.value().into()));
    }
    Ok(contents)
}

fn prepare(database: &Database) -> Result<(), redb::Error> {
    let found = match database.begin_read()?.open_table(ABOUT) {
        Ok(about) => about.get("format")?.map(|found| found.value()),
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match found {
        Some(FORMAT) => return Ok(()),
        Some(other) => return Err(super::file::other_format(other)),
        None => {}
    }
    let transaction = database.begin_write()?;
    transaction.open_table(ABOUT)?.insert("format", FORMAT)?;
    drop(Tables::open(&transaction)?);
    Ok(transaction.commit()?)
}

/// Writes changes in one transaction, which is on the disk when this returns.
pub(super) fn write<'a>(
    database: &Database,
    changes: impl Iterator<Item = &'a Change>,
) -> Result<(), redb::Error> {
    let mut changes = changes.peekable();
    if changes.peek().is_none() {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        for change in changes {
            tables.apply(change)?;
        }
    }
    Ok(transaction.commit()?)
}

struct Tables<'t> {
    sessions: Table<'t, &'static str, &'static [u8]>,
    subscriptions: Table<'t, (&'static str, &'static str), &'static [u8]>,
    deliveries: Table<'t, (&'static str, u64), (u64, &'static [u8])>,
    messages: Table<'t, u64, &'static [u8]>,
    references: Table<'t, u64, u64>,
    retained: Table<'t, &'static str, &'static [u8]>,
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            subscriptions: transaction.open_table(SUBSCRIPTIONS)?,
            deliveries: transaction.open_table(DELIVERIES)?,
            messages: transaction.open_table(MESSAGES)?,
            references: transaction.open_table(REFERENCES)?,
            retained: transaction.open_table(RETAINED)?,
        })
    }

    fn apply(&mut self, change: &Change) -> Result<(), redb::Error> {
        match change {
            Change::Session { client, record } => {
                self.sessions.insert(client.as_str(), record.as_slice())?;
            }
            Change::Subscribed { client, filter, record } => {
                self.subscriptions.insert((client.as_str(), filter.as_str()), record.as_slice())?;
            }
            Change::Unsubscribed { client, filter } => {
                self.subscriptions.remove((client.as_str(), filter.as_str()))?;
            }
            Change::Ended { client } => self.end(client)?,
            Change::Message { record, deliveries } => self.add_message(record, deliveries)?,
            Change::Delivery(Delivery { client, number, record }) => {
                let key = (client.as_str(), *number);
                let message = self.deliveries.get(key)?.map(|row| row.value().0);
                if let Some(message) = message {
                    self.deliveries.insert(key, (message, record.as_slice()))?;
                }
            }
            Change::Taken { client, number } => {
                let message = self.deliveries.remove((client.as_str(), *number))?.map(|row| row.value().0);
                if let Some(message) = message {
                    self.release(message)?;
                }
            }
            Change::Retained { topic, record: Some(record) } => {
                self.retained.insert(topic.as_str(), record.as_slice())?;
            }
            Change::Retained { topic, record: None } => {
                self.retained.remove(topic.as_str())?;
            }
        }
        Ok(())
    }

    fn add_message(&mut self, record: &[u8], deliveries: &[Delivery]) -> Result<(), redb::Error> {
        let Some(message) = deliveries.first().map(|first| first.number) else { return Ok(()) };
        self.messages.insert(message, record)?;
        self.references.insert(message, deliveries.len() as u64)?;
        for one in deliveries {
            self.deliveries.insert((one.client.as_str(), one.number), (message, one.record.as_slice()))?;
        }
        Ok(())
    }

    fn end(&mut self, client: &str) -> Result<(), redb::Error> {
        self.sessions.remove(client)?;
        let filters: Vec<String> = self
            .subscriptions
            .range((client, "")..)?
            .map_while(|row| match row {
                Ok((key, _)) => {
                    let (of, filter) = key.value();
                    (of == client).then(|| Ok(String::from(filter)))
                }
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<_, _>>()?;
        for filter in filters {
            self.subscriptions.remove((client, filter.as_str()))?;
        }
        let mut messages = Vec::new();
        self.deliveries.retain_in((client, 0)..=(client, u64::MAX), |_, (message, _)| {
            messages.push(message);
            false
        })?;
        for message in messages {
            self.release(message)?;
        }
        Ok(())
    }

    /// One delivery less of a message.
    fn release(&mut self, message: u64) -> Result<(), redb::Error> {
        let left = self.references.get(message)?.map_or(0, |count| count.value().saturating_sub(1));
        if left > 0 {
            self.references.insert(message, left)?;
        } else {
            self.references.remove(message)?;
            self.messages.remove(message)?;
        }
        Ok(())
    }
}

/// The format of tables and records. Another version of rmqtt has other records: it needs another number.
pub(super) const FORMAT: u64 = 1;

const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
const SESSIONS: TableDefinition<&str, &[u8]> = TableDefinition::new("sessions");
/// By client id and filter.
const SUBSCRIPTIONS: TableDefinition<(&str, &str), &[u8]> = TableDefinition::new("subscriptions");
/// By client id and number: the number of the message, and how it is delivered.
const DELIVERIES: TableDefinition<(&str, u64), (u64, &[u8])> = TableDefinition::new("deliveries");
const MESSAGES: TableDefinition<u64, &[u8]> = TableDefinition::new("messages");
/// How many deliveries need a message.
const REFERENCES: TableDefinition<u64, u64> = TableDefinition::new("references");
const RETAINED: TableDefinition<&str, &[u8]> = TableDefinition::new("retained");

/// About what a row costs besides its record.
const ROW: usize = 64;
