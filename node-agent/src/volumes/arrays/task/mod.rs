//! One volume: what it needs next, once a second and whenever something is heard. Nothing here waits for a leg: what may wait is done beside
//! it, and a leg that is recorded out is let go of while others are still waited for.

mod hold;
mod keep;
mod reach;
mod silent;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use strand_api::{ArrayStatus, Attachment, AttachmentPhase, PlacedLeg, PoolVolume};
use strand_arrays::{ArrayError, Present, Running, Seen, Wanted};
use strand_fabric::Nqn;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::told::Trouble;
use super::wanted::wanted;
use super::{Asked, Parts, Sight};
use crate::volumes::AttachError;
use crate::volumes::connections::Record;
use keep::still;
use silent::{Silent, unanswering};

/// How often it looks by itself.
const LOOK: Duration = Duration::from_secs(1);
/// And while somebody waits for it.
const SOON: Duration = Duration::from_millis(200);
/// How often everything is looked over, whether or not something has changed.
const OVER: Duration = Duration::from_secs(10);
/// An answer of the API later than this is none.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take until it is told that an array cannot be put together.
const REACHED: Duration = Duration::from_secs(3);
/// How long a leg may take to be reached at first: its agent, or this one, may have just started, and serves drives one after the other.
const SERVED: Duration = Duration::from_secs(30);

/// How a volume is, to whoever asked for it.
#[derive(Clone, Debug)]
pub(super) enum Shown {
    Waits(String),
    Refused(String),
    Device(PathBuf),
}

/// What is done beside the task; each once at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Job {
    /// The array is brought to what the volume says.
    Keep,
    /// Something is told to the API.
    Tell,
    /// Its record is kept.
    Note,
    /// A leg is reached, or let go of.
    Leg(Uuid),
    /// Devices of legs that are not the volume's any more are taken away.
    TakeBack,
    /// Everything is given back.
    GiveBack,
}

/// What came of it.
enum Done {
    Kept(Box<Wanted>, Result<Box<Seen>, ArrayError>),
    Told(Box<ArrayStatus>, Result<(), String>),
    Noted(Box<Record>, Result<(), AttachError>),
    Reached(Uuid, Result<Option<PathBuf>, AttachError>),
    Cut(Result<(), AttachError>),
    TakenBack(BTreeSet<Uuid>, Result<(), AttachError>),
    GivenBack(Result<(), AttachError>),
}

/// The array as it was kept last, and when.
struct Kept {
    wanted: Wanted,
    array: Option<Running>,
    at: Instant,
}

pub(super) struct Task {
    parts: Arc<Parts>,
    record: Record,
    /// The record as it is kept.
    noted: Option<Record>,
    begun: Instant,
    object: Option<PoolVolume>,
    /// It was not deleted since it was heard of.
    object_is_there: bool,
    /// Somebody asked this process for it: only then is it put together.
    asked_for: bool,
    /// Legs that lie here.
    here: BTreeMap<Uuid, PathBuf>,
    /// The legs for which devices here were looked through last.
    legs_here: BTreeSet<Uuid>,
    /// Of legs in no array: what was on them when they were looked at.
    contents: BTreeMap<Uuid, Present>,
    kept: Option<Kept>,
    trouble: Option<Trouble>,
    /// Legs of what is only read whose connections do not answer.
    silent: Silent,
    /// Why legs are not reached, in words.
    waits_for: BTreeMap<Uuid, String>,
    told: Option<(ArrayStatus, Instant)>,
    /// The look at the legs that was asked for last, and when that was heard.
    asked_to_look: (i64, Instant),
    jobs: JoinSet<(Job, Done)>,
    under_way: BTreeSet<Job>,
    /// Jobs that failed, and when they may be tried again.
    later: BTreeMap<Job, Instant>,
    giving_back: Vec<oneshot::Sender<Result<(), AttachError>>>,
    shown: watch::Sender<Shown>,
}

impl Task {
    pub(super) fn new(parts: Arc<Parts>, record: Record, shown: watch::Sender<Shown>) -> Self {
        Self {
            parts,
            record,
            noted: None,
            begun: Instant::now(),
            object: None,
            object_is_there: false,
            asked_for: false,
            here: BTreeMap::new(),
            legs_here: BTreeSet::new(),
            contents: BTreeMap::new(),
            kept: None,
            trouble: None,
            silent: Silent::default(),
            waits_for: BTreeMap::new(),
            told: None,
            asked_to_look: (0, Instant::now()),
            jobs: JoinSet::new(),
            under_way: BTreeSet::new(),
            later: BTreeMap::new(),
            giving_back: Vec::new(),
            shown,
        }
    }

    /// Sees to the volume until it was given back.
    pub(super) async fn run(mut self, mut asked: mpsc::UnboundedReceiver<Asked>) {
        let volumes = Api::<PoolVolume>::all(self.parts.client.clone());
        let config =
            watcher::Config::default().fields(&format!("metadata.name={}", self.record.volume));
        let mut objects = watcher(volumes, config).default_backoff().boxed();
        loop {
            self.step().await;
            let waited_for = matches!(*self.shown.borrow(), Shown::Waits(_)) && self.asked_for;
            let pause = if waited_for { SOON } else { LOOK };
            tokio::select! {
                ask = asked.recv() => match ask {
                    Some(ask) => self.take(ask),
                    None => return,
                },
                Some(news) = objects.next() => self.hear(news),
                Some(done) = self.jobs.join_next() => {
                    // A job that broke off has said so.
                    if let Ok((job, done)) = done
                        && self.done(job, done)
                    {
                        break;
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        // Whoever asks from now on begins anew.
        asked.close();
        while let Ok(ask) = asked.try_recv() {
            if let Asked::Detach(answer) = ask {
                self.giving_back.push(answer);
            }
        }
        for answer in self.giving_back {
            // Who does not wait any more needs no answer.
            let _ = answer.send(Ok(()));
        }
    }

    fn take(&mut self, ask: Asked) {
        match ask {
            Asked::Attach(granted) => {
                self.asked_for = true;
                self.object = Some(granted.object);
                self.object_is_there = true;
                // What was refused is tried again for whoever asks again.
                self.later.clear();
                self.shown.send_if_modified(|shown| {
                    let again = matches!(shown, Shown::Refused(_));
                    if again {
                        *shown = Shown::Waits("it is looked at again".into());
                    }
                    again
                });
                if self.trouble.as_ref().is_some_and(|trouble| trouble.lasts) {
                    self.trouble = None;
                }
            }
            Asked::Detach(answer) => {
                self.later.remove(&Job::GiveBack);
                self.giving_back.push(answer);
            }
        }
    }

    fn hear(&mut self, news: Result<Event<PoolVolume>, watcher::Error>) {
        match news {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                self.object = Some(object);
                self.object_is_there = true;
            }
            // An object that is gone says nothing: what is attached stays.
            Ok(Event::Delete(_)) => self.object_is_there = false,
            Ok(Event::Init | Event::InitDone) => {}
            Err(error) => {
                let volume = &self.record.volume;
                tracing::warn!(volume, %error, "watching a volume failed; it is tried again, and what is known stays");
            }
        }
    }

    /// Begins a job, unless it is under way or has failed a moment ago.
    fn start(&mut self, job: Job, work: impl Future<Output = Done> + Send + 'static) {
        if self.is_due(job) {
            self.under_way.insert(job);
            self.jobs.spawn(async move { (job, work.await) });
        }
    }

    fn is_due(&self, job: Job) -> bool {
        let waits = self.later.get(&job).is_some_and(|at| *at > Instant::now());
        !self.under_way.contains(&job) && !waits
    }

    fn again(&mut self, job: Job, after: Duration) {
        self.later.insert(job, Instant::now() + after);
    }

    /// Takes what came of a job; whether everything is given back.
    fn done(&mut self, job: Job, done: Done) -> bool {
        self.under_way.remove(&job);
        self.later.remove(&job);
        let volume = self.record.volume.clone();
        match done {
            Done::Kept(wanted, Ok(seen)) => {
                let looked = wanted.legs.iter().zip(seen.legs);
                for (leg, present) in looked {
                    match present.filter(|present| present.content.is_some()) {
                        Some(present) => drop(self.contents.insert(leg.uuid, present)),
                        None => drop(self.contents.remove(&leg.uuid)),
                    }
                }
                self.trouble = None;
                self.kept = Some(Kept {
                    wanted: *wanted,
                    array: still(seen.array.as_ref()),
                    at: Instant::now(),
                });
            }
            Done::Kept(_, Err(error)) => {
                let trouble = Trouble::of(&error);
                if self.trouble.as_ref() != Some(&trouble) {
                    tracing::info!(volume, %error, "its array is not as it shall be; it is tried again");
                }
                self.again(job, if trouble.lasts { OVER } else { LOOK });
                self.trouble = Some(trouble);
                self.kept = None;
            }
            Done::Told(status, Ok(())) => self.told = Some((*status, Instant::now())),
            Done::Told(_, Err(error)) => {
                tracing::debug!(
                    volume,
                    error,
                    "what its legs are was not told; it is tried again"
                );
                self.again(job, LOOK);
            }
            Done::Noted(record, Ok(())) => self.noted = Some(*record),
            Done::Noted(record, Err(error)) => {
                self.again(job, LOOK);
                self.waits_for
                    .insert(record.array.unwrap_or_default(), error.to_string());
            }
            Done::Reached(uuid, Ok(device)) => {
                self.waits_for.remove(&uuid);
                self.here.extend(device.map(|device| (uuid, device)));
            }
            Done::Reached(uuid, Err(error)) => {
                let waits = self.asked_for && matches!(*self.shown.borrow(), Shown::Waits(_));
                self.again(job, if waits { LOOK / 2 } else { 2 * LOOK });
                self.waits_for.insert(uuid, error.to_string());
            }
            Done::Cut(Ok(())) => tracing::info!(volume, "a leg was let go of"),
            Done::Cut(Err(error)) => {
                tracing::warn!(volume, %error, "a leg is not let go of; it is tried again");
                self.again(job, LOOK);
            }
            Done::TakenBack(legs, Ok(())) => self.legs_here = legs,
            Done::TakenBack(_, Err(error)) => {
                tracing::debug!(volume, %error, "a device of an earlier leg stays");
                self.again(job, OVER);
            }
            Done::GivenBack(Ok(())) => return true,
            Done::GivenBack(Err(error)) => {
                self.again(job, OVER / 2);
                let mut answers = std::mem::take(&mut self.giving_back).into_iter();
                if let Some(answer) = answers.next() {
                    // Who does not wait any more needs no answer.
                    let _ = answer.send(Err(error));
                }
                for answer in answers {
                    let why = "it was asked for twice, and is still in use".into();
                    let volume = volume.clone();
                    let _ = answer.send(Err(AttachError::NotYet { volume, why }));
                }
            }
        }
        false
    }

    /// Begins what is needed next.
    async fn step(&mut self) {
        let sight = self.parts.sight().await;
        let array = self.record.array;
        let running = sight
            .arrays
            .iter()
            .find(|found| array.is_some_and(|array| found.is_of(array)) && found.started());
        let Some(object) = self.object.clone() else {
            if !self.giving_back.is_empty() {
                self.give_back(&sight, None);
            }
            return;
        };
        let attachment = attachment(&object, &self.parts.node, self.record.generation);
        let Some(attachment) = attachment.cloned() else {
            self.give_back(&sight, None);
            self.show(Shown::Waits("it is not granted to this node now".into()));
            return;
        };
        let now = self.wanted(&object, &sight);
        if !self.giving_back.is_empty() {
            // Of what is gone or to be deleted nothing is recorded any more.
            let recorded = self.object_is_there && !object.spec.deletion_mark;
            let now = now.clone().filter(|_| recorded);
            self.give_back(&sight, now.map(|now| (now, object.spec.legs.clone())));
        }
        let ends = !self.giving_back.is_empty();
        if self.asked_for || running.is_some() {
            self.reach(&object, &attachment, &sight, running, ends);
        }
        let Some(now) = now else {
            self.show(Shown::Waits(
                "its record does not say yet what it is".into(),
            ));
            return;
        };
        if !ends {
            self.keep(&now, running);
        }
        if !self.record.read_only {
            self.tell(&now, running, sight.began);
        }
        self.show_how(&now, running, ends);
    }

    /// `recorded`: what its record counts, where that can still change, and its legs as they are there.
    fn give_back(&mut self, sight: &Sight, recorded: Option<(Wanted, Vec<PlacedLeg>)>) {
        // A look at legs that do not answer lasts as long as they do not. Whoever writes has them recorded out.
        let looks = [Job::Keep, Job::GiveBack];
        let waits = looks.iter().any(|job| self.under_way.contains(job));
        let asked = !self.giving_back.is_empty();
        let silent = unanswering(&self.record, &sight.connections);
        for nqn in silent.into_iter().filter(|_| asked && waits) {
            let (parts, volume) = (Arc::clone(&self.parts), self.record.volume.clone());
            self.start(Job::Leg(nqn.uuid()), async move {
                Done::Cut(parts.cut(&volume, nqn).await)
            });
        }
        // What is being made would be left over.
        if self
            .under_way
            .iter()
            .any(|job| !matches!(job, Job::Tell | Job::GiveBack))
        {
            return;
        }
        let (parts, record) = (Arc::clone(&self.parts), self.record.clone());
        let here = self.here.values().cloned().collect();
        self.start(Job::GiveBack, async move {
            Done::GivenBack(parts.give_back(record, here, recorded).await)
        });
    }

    /// What the array shall be, with the legs that answer now.
    fn wanted(&self, object: &PoolVolume, sight: &Sight) -> Option<Wanted> {
        let Record {
            generation,
            read_only,
            ..
        } = self.record;
        let device = |uuid: Uuid| {
            if let Some(device) = self.here.get(&uuid) {
                return Some(device.clone());
            }
            let nqn = Nqn::leg(uuid, generation);
            let mut connections = sight.connections.iter();
            let found = connections.find(|found| found.nqn == nqn && found.is_live())?;
            found.device.clone()
        };
        wanted(&self.record.volume, object, (generation, read_only), device)
    }

    fn show_how(&self, now: &Wanted, running: Option<&Running>, ends: bool) {
        let waits = |why: &str| Shown::Waits(why.to_owned());
        self.show(match (running, &self.trouble) {
            _ if ends => waits("it is being given back"),
            (Some(_), _) if !now.read_only && self.is_told_stopped() => {
                waits("that it runs again is not told yet")
            }
            (Some(array), _) if now.formed => Shown::Device(array.device()),
            (Some(_), _) => waits("that its array was made is not recorded yet"),
            (None, Some(trouble)) if trouble.lasts => {
                Shown::Refused(trouble.refusal.message.clone())
            }
            (None, Some(trouble)) => Shown::Waits(trouble.refusal.message.clone()),
            (None, None) => waits("its array is being put together"),
        });
    }

    fn show(&self, how: Shown) {
        self.shown.send_replace(how);
    }
}

/// The attachment of this generation, as long as its node may use the volume.
fn attachment<'a>(volume: &'a PoolVolume, node: &str, generation: u64) -> Option<&'a Attachment> {
    let mut attachments = volume.status.iter().flat_map(|status| &status.attachments);
    attachments.find(|attachment| {
        attachment.node == node
            && attachment.generation.unsigned_abs() == generation
            && attachment.phase != AttachmentPhase::Fencing
    })
}
