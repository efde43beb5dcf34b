//! What a source's answer is made into: compressed where the rule says so, combined with the parts of it
//! that are stored, and then an object of the store. Decides nothing on freshness.

use crate::accept::Form;
use crate::api::SourceResponse;
use crate::compress;
use crate::compressed_body::{self, CompressedBody};
use crate::conditional;
use crate::encoder::Encoder;
use crate::fetch::{Job, declared_length, empty};
use crate::fields::{VERGE_CODED, with_length};
use crate::fill::Head;
use crate::freshness::NotStored;
use crate::keep::Kept;
use crate::key::Key;
use crate::object::{Parts, Span, StoredObject};
use crate::purge_index::Verdict;
use crate::slices;
use crate::store::Inserted;
use http::header::CONTENT_RANGE;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt;
use std::sync::Arc;
use std::time::Duration;
use verge_config::site::Coding;

/// How long content of unknown length is waited for, to see whether it is long enough to be compressed.
const PATIENCE: Duration = Duration::from_millis(50);

impl Job {
    /// Stores what has come.
    pub(crate) async fn store(&self, head: &Head, kept: Kept) -> Option<StoredObject> {
        let mut fields = head.fields.clone();
        fields.personal.clear();
        let (mut status, mut span, mut kept) = (head.status, head.span, kept);
        if let Some(own) = head.span {
            (span, kept) = self.combine(head, own, kept).await;
            if span.is_none() {
                status = StatusCode::OK;
                fields.visible.remove(CONTENT_RANGE);
            }
        }
        if span.is_none() {
            with_length(&mut fields.visible, status, kept.len());
        }
        let parts = Parts {
            key: Key::clone(&self.fill.key),
            site: Arc::clone(&self.site),
            status,
            fields,
            freshness: head.judgement.freshness.clone(),
            selection: head.selection.clone().map(Box::new),
            tags: head.tags.clone(),
            span: span.map(Box::new),
            epoch: self.epoch,
        };
        let object = self.inner.object(parts, kept).await?;
        let inserted = self.put(&object);
        if inserted == Inserted::Purged {
            self.inner.note(NotStored::Purged);
        }
        if inserted != Inserted::Stored {
            self.inner.store.discard(&object);
            return None;
        }
        Some(object)
    }

    /// Compresses what the rule says, once for all who will read it.
    pub(crate) async fn compress(&self, response: &mut SourceResponse) {
        // The mark is ours alone.
        response.headers.remove(VERGE_CODED);
        let Some(rule) = self.policy.compress.as_deref().filter(|_| self.asked.is_none()) else {
            return;
        };
        let (request, status) = (&self.fill.request, response.status);
        let mut length = declared_length(response);
        let chosen =
            |length| compress::choose(Some(rule), request, status, &response.headers, length);
        if chosen(length).is_none() {
            return;
        }
        if length.is_none() {
            let body = std::mem::replace(&mut response.body, empty());
            let (seen, body) = compressed_body::peek(body, rule.min, PATIENCE).await;
            response.body = body;
            length = Some(seen.bytes());
        }
        let chosen = compress::choose(Some(rule), request, status, &response.headers, length);
        let Some(form) = chosen else { return };
        if let Form::Coded(coding) = form {
            let Ok(encoder) = Encoder::new(coding, declared_length(response)) else { return };
            let body = std::mem::replace(&mut response.body, empty());
            response.body = CompressedBody::new(body, encoder).boxed_unsync();
        }
        response.headers.insert(VERGE_CODED, HeaderValue::from_static(form.name()));
        compress::apply(&mut response.headers, form);
    }

    /// A part, with the stored parts that it meets (RFC 9111 section 3.4).
    pub(crate) async fn combine(
        &self,
        head: &Head,
        span: Span,
        kept: Kept,
    ) -> (Option<Span>, Kept) {
        let (Kept::Memory(pieces), Some(of)) =
            (&kept, conditional::strong_validator(&head.fields.visible))
        else {
            return (Some(span), kept);
        };
        let entry = self.inner.store.get(self.hash, &self.fill.key.as_key_ref());
        let mut joined = slices::Combined::new(span, pieces.concat().into());
        for object in entry.iter().flat_map(|entry| entry.variants()) {
            let same = object.selected_by(&self.fill.request)
                && object.verdict() == Verdict::Alive
                && conditional::strong_validator(&object.headers()).as_ref() == Some(&of);
            if let Some(other) = object.span.as_deref().filter(|_| same)
                && let Ok(bytes) = self.inner.store.bytes(object).await
            {
                joined.add(*other, &bytes);
            }
        }
        let (span, content) = joined.into_parts();
        (span, Kept::Memory(vec![content]))
    }
}

/// How a stored response was compressed here.
pub(crate) fn form_of(name: &HeaderValue) -> Option<Form> {
    let forms = Coding::ALL.into_iter().map(Form::Coded).chain([Form::Identity]);
    forms.into_iter().find(|form| name == form.name())
}
