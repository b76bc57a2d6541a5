//! What a run may show of the processes behind sockets: all of them, or those of one user.

use std::borrow::Cow;

use conn_common::owner::Owner;

use crate::event::Event;
use crate::event::kind::Kind;

/// The holders of a socket that a viewer may see; `None` if it may see none.
pub(crate) fn holders(holders: Option<&[Owner]>, viewer: Option<u32>) -> Option<Cow<'_, [Owner]>> {
    let holders = holders?;
    let Some(viewer) = viewer else { return Some(Cow::Borrowed(holders)) };
    let own: Vec<Owner> = holders.iter().filter(|holder| holder.uid == viewer).copied().collect();
    (!own.is_empty()).then_some(Cow::Owned(own))
}

/// The event without its owner, if the owner is not the viewer's.
pub(crate) fn event(event: &Event, viewer: Option<u32>) -> Cow<'_, Event> {
    let Some(viewer) = viewer else { return Cow::Borrowed(event) };
    let mut event = *event;
    event.connection.owner = owner(event.connection.owner, viewer);
    if event.kind != Kind::Open {
        // The number of a stream has the processes of other users, that of a list has those that are visible.
        event.connection.owner.holders = event.connection.owner.holders.min(1);
    }
    Cow::Owned(event)
}

/// The owner, if the viewer may see it.
pub(crate) fn owner(owner: Owner, viewer: u32) -> Owner {
    // An owner that is one of several processes has no user of its own.
    if owner.is_known() && owner.uid == viewer { owner } else { Owner::NONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_of_others_are_not_visible() {
        let all = [7, 8, 7].map(|uid| Owner { uid, source: conn_common::owner::FILES, ..Owner::NONE });
        let seen = |viewer| holders(Some(&all), viewer).map(|seen| seen.len());
        assert_eq!([None, Some(7), Some(8), Some(9)].map(seen), [Some(3), Some(2), Some(1), None]);
        assert_eq!(holders(None, Some(7)), None);
        assert_eq!(owner(all[0], 7), all[0]);
        assert_eq!(owner(all[0], 8), Owner::NONE);
    }
}
