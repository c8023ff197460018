//! Which threads stand back: acks go before seals and merges where the cores are taken. Those that
//! evaluate stand back further (`serve/priority.py` in the product).
//!
//! Invariant: no thread that takes the GIL stands back. It would be put off while it holds it, and
//! the event loop with it.

use crate::error::{KernelError, Result};

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
        let fails = behind_acks::<()>("seal", || Err(KernelError::corruption("no")));
        assert!(matches!(fails, Err(KernelError::Corruption(_))));
        Ok(())
    }
}
