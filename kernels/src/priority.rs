//! Which threads stand back: acks go before seals and merges where the cores are taken. Those that
//! evaluate or roll up stand back further (`serve/priority.py` in the product).
//!
//! Invariant: no thread that takes the GIL stands back. It would be put off while it holds it, and
//! the event loop with it.

use crate::error::{KernelError, Result};
use crossbeam_channel::{Sender, bounded};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// How far work stands back from acks, in the scheduler's "nice".
const NICE: i32 = 10;

/// Let the calling thread, and the threads that it starts from now on, stand back. On Linux the
/// priority is a thread's own. Where it cannot be lowered, work weighs as much as acks.
pub fn stand_back() {
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// Run `work` on a thread of its own that stands back, and wait for it.
pub fn behind_acks<T: Send>(name: &str, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned());
        let run = || {
            stand_back();
            work()
        };
        let ended = thread.spawn_scoped(scope, run)?.join();
        ended.unwrap_or_else(|_| Err(KernelError::Backend(format!("the {name} thread panicked"))))
    })
}

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for the lane; who asks is blocked meanwhile, so there are no more than askers.
const JOBS_MAX: usize = 8;

/// A thread that does one piece of work after the other, with the priority of whoever started it:
/// started where that stands back, it runs on idle time, which a thread cannot be told later on.
pub struct WorkLane {
    jobs: Sender<Job>,
}

impl WorkLane {
    /// The thread ends when the lane is dropped.
    pub fn start(name: &str) -> Result<WorkLane> {
        let (jobs, waiting) = bounded::<Job>(JOBS_MAX);
        let run = move || {
            for job in waiting {
                // Who asked hears of it: his answer never comes.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(WorkLane { jobs })
    }

    /// Run `work` on the lane's thread, and wait for it.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (answer, answered) = bounded(1);
        let ended = || KernelError::Backend("the lane's work panicked".to_owned());
        let job: Job = Box::new(move || {
            let _ = answer.send(work());
        });
        self.jobs.send(job).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?
    }
}

thread_local! {
    static LANE: RefCell<Option<Arc<WorkLane>>> = const { RefCell::new(None) };
}

/// What the calling thread has done in the background is done on this lane from now on.
pub fn work_on(lane: Arc<WorkLane>) {
    LANE.set(Some(lane));
}

/// On the calling thread's lane where it has one, else on a thread of its own.
pub fn in_background<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match LANE.with_borrow(Clone::clone) {
        Some(lane) => lane.run(work),
        None => behind_acks(name, work),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getpriority_process;

    #[test]
    fn only_the_thread_that_works_stands_back() -> Result<()> {
        let own = || getpriority_process(None).map_err(std::io::Error::from);
        let before = own()?;
        let of_work = behind_acks("seal", || Ok(own()?))?;
        assert_eq!((own()?, of_work), (before, before.max(NICE)));
        let lane = behind_acks("start", || WorkLane::start("lane"))?;
        assert_eq!(lane.run(move || Ok(own()?))?, before.max(NICE));
        let fails = lane.run(|| -> Result<()> { Err(KernelError::corruption("no")) });
        assert!(matches!(fails, Err(KernelError::Corruption(_))));
        let dies = lane.run(|| -> Result<()> { panic!("a job") });
        assert!(matches!(dies, Err(KernelError::Backend(_))));
        assert_eq!(lane.run(|| Ok(7))?, 7, "the lane outlives it");
        let working = || Ok(std::thread::current().name().map(str::to_owned));
        assert_eq!(in_background("merge", working)?.as_deref(), Some("merge"));
        work_on(Arc::new(lane));
        assert_eq!(in_background("merge", working)?.as_deref(), Some("lane"));
        let fails = behind_acks::<()>("seal", || Err(KernelError::corruption("no")));
        assert!(matches!(fails, Err(KernelError::Corruption(_))));
        Ok(())
    }
}
