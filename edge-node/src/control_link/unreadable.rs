//! What becomes of a line of the feed whose type is known and whose content is not: the safe of all that it
//! may mean.

use super::apply::{Applier, ApplyError};
use serde_json::Value;
use std::time::Instant;
use verge_config::kv::EntryChanged;
use verge_config::purge::Purge;
use verge_config::{Mode, Revision, Selector};

/// The longest id of a question that cannot be read, in bytes.
const QUESTION_ID_MAX: usize = 100;

impl Applier {
    /// A line whose type is known and whose content is not: a site is refused; a purge that cannot be
    /// understood purges everything of its site, which is the safe direction.
    pub(super) fn unreadable(
        &mut self,
        line: &[u8],
        error: &serde_json::Error,
        arrived: Instant,
    ) -> Result<(), ApplyError> {
        let broken = || ApplyError::Broken(error.to_string());
        let value: Value = serde_json::from_slice(line).map_err(|_| broken())?;
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let revision = value.get("revision").and_then(Value::as_u64).map(Revision);
        match (text("type"), revision, text("site")) {
            (Some("site"), Some(revision), Some(site)) => {
                self.effects.status.saw(revision);
                if let Some(seen) = &mut self.seen {
                    seen.insert(site.to_owned());
                }
                if self.known.get(site).is_none_or(|known| known.revision < revision) {
                    self.refuse(revision, site, &format!("the document cannot be read: {error}"));
                }
                self.advance(revision);
                Ok(())
            }
            (Some("purge"), Some(revision), Some(site)) => {
                tracing::error!(site, %revision, %error, "a purge cannot be understood; everything of its site is purged");
                let selectors = vec![Selector::Everything(true)];
                let purge = Purge { revision, site: site.to_owned(), selectors, mode: Mode::Hard };
                self.purge(&purge, arrived);
                Ok(())
            }
            (Some("entry"), Some(revision), Some(site)) => {
                // Which entry it is about is not known: it may be any of the site's.
                let (site, after) = (site.to_owned(), Revision::ZERO);
                self.entry_changed(&EntryChanged { revision, site, key: None, after });
                Ok(())
            }
            (Some("previews"), Some(revision), Some(site)) => {
                self.unreadable_previews(revision, site, error);
                Ok(())
            }
            (Some("question"), _, _) => {
                if let Some(id) = text("id").filter(|id| id.len() <= QUESTION_ID_MAX) {
                    let reason = "this edge's version does not understand the question";
                    self.effects.questions.refuse(id.to_owned(), reason);
                }
                Ok(())
            }
            _ => Err(broken()),
        }
    }
}
