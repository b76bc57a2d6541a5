//! How many commands may run for clients at the same time: all together, and those of one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::serve::problem::Problem;

/// How many commands run at the same time.
pub(crate) const MAX_COMMANDS: usize = 16;
/// How many of them may be of one user other than root.
pub(crate) const MAX_OF_USER: usize = 4;

/// The places of commands, by user.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(Arc<Mutex<HashMap<u32, usize>>>);

/// The place of one command. Dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place {
    places: Places,
    uid: u32,
}

impl Places {
    /// A place for a command of this user.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn take(&self, uid: u32) -> Result<Place, Problem> {
        let full = |message| Err(Problem::new(503, message, "ask again later"));
        let mut by_user = self.lock();
        if by_user.values().sum::<usize>() >= MAX_COMMANDS {
            return full(format!("{MAX_COMMANDS} commands of clients run, and no more may"));
        }
        let of_user = by_user.entry(uid).or_default();
        if uid != 0 && *of_user >= MAX_OF_USER {
            return full(format!("{MAX_OF_USER} commands of this user run, and no more may"));
        }
        *of_user += 1;
        drop(by_user);
        Ok(Place { places: self.clone(), uid })
    }

    /// How many commands run.
    pub(crate) fn taken(&self) -> usize {
        self.lock().values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, usize>> {
        // The numbers are whole at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_user = self.places.lock();
        if let Some(of_user) = by_user.get_mut(&self.uid) {
            *of_user -= 1;
            if *of_user == 0 {
                by_user.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_takes_all_places() {
        let places = Places::default();
        let take = |uid| places.take(uid).map_err(|problem| problem.message);
        let mut held: Vec<Place> = (0..MAX_OF_USER).map(|_| take(7).unwrap()).collect();
        assert!(take(7).unwrap_err().contains("4 commands of this user"));
        held.extend((0..MAX_COMMANDS - MAX_OF_USER).map(|_| take(0).unwrap()));
        assert!(take(0).unwrap_err().contains("16 commands"));
        assert!(take(8).unwrap_err().contains("16 commands"));
        held.remove(0);
        held.push(take(7).unwrap());
        assert_eq!(places.taken(), MAX_COMMANDS);
        drop(held);
        assert_eq!((places.taken(), places.lock().len()), (0, 0));
    }
}
