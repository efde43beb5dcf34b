//! `verge:edge/cache`: values that the site's handlers keep by keys of their own, and purges of the
//! site's tags. Counts and bounds the calls; what is stored, and for how long, is the host's affair.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use verge_config::site::Grant;

use super::bindings::verge::edge::cache::{Host, PutOptions};
use super::bindings::verge::edge::types::Error;
use super::granted;
use crate::guest::State;
use crate::host::{CacheEntry, Host as Edge};
use crate::settings::limits;

impl Host for State {
    async fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, Error> {
        let edge = call(self)?;
        check_key(&key)?;
        Ok(edge.cache_get(key).await?.map(Vec::from))
    }

    async fn put(&mut self, key: String, value: Vec<u8>, options: PutOptions) -> Result<(), Error> {
        let edge = call(self)?;
        check_key(&key)?;
        let PutOptions { ttl, tags } = options;
        if value.len() > limits::CACHE_VALUE_BYTES {
            let (bytes, most) = (value.len(), limits::CACHE_VALUE_BYTES);
            return Err(Error::Invalid(format!("the value has {bytes} bytes; at most {most}")));
        }
        if !(1..=limits::CACHE_TTL_SECONDS).contains(&ttl) {
            let most = limits::CACHE_TTL_SECONDS;
            return Err(Error::Invalid(format!("a ttl of {ttl} s is out of bounds: 1 to {most}")));
        }
        check_tags(&tags)?;
        edge.cache_put(CacheEntry { key, value: value.into(), ttl, tags }).await?;
        Ok(())
    }

    async fn purge(&mut self, tags: Vec<String>) -> Result<u64, Error> {
        let edge = call(self)?;
        if tags.is_empty() {
            return Err(Error::Invalid("name at least one tag".to_owned()));
        }
        check_tags(&tags)?;
        Ok(edge.cache_purge(tags).await?)
    }
}

/// One more call of the cache, if the site grants it and the request has one left.
fn call(state: &State) -> Result<Arc<dyn Edge>, Error> {
    granted(state, Grant::Cache)?;
    let call = &state.call;
    let most = call.limits.cache_calls;
    if call.cache_calls.fetch_add(1, Ordering::Relaxed) >= most {
        let text = format!("more than {most} calls of the cache; raise limits.cache_calls");
        return Err(Error::TooMany(text));
    }
    Ok(Arc::clone(&call.host))
}

fn check_key(key: &str) -> Result<(), Error> {
    let most = limits::CACHE_KEY_BYTES;
    if (1..=most).contains(&key.len()) {
        return Ok(());
    }
    let bytes = key.len();
    Err(Error::Invalid(format!("a key of {bytes} bytes is out of bounds: 1 to {most}")))
}

fn check_tags(tags: &[String]) -> Result<(), Error> {
    if tags.len() > limits::CACHE_TAGS {
        let (count, most) = (tags.len(), limits::CACHE_TAGS);
        return Err(Error::Invalid(format!("{count} tags; at most {most}")));
    }
    let most = limits::CACHE_TAG_BYTES;
    for (index, tag) in tags.iter().enumerate() {
        if !(1..=most).contains(&tag.len()) {
            let bytes = tag.len();
            let text = format!("tags[{index}] has {bytes} bytes: 1 to {most} are allowed");
            return Err(Error::Invalid(text));
        }
        if tag.chars().any(|c| c.is_whitespace() || c.is_control() || c == ',') {
            let text = format!("tags[{index}] has a space, comma or control character in it");
            return Err(Error::Invalid(text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tags(tags: &[&str]) -> Result<(), Error> {
        check_tags(&tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn keys_and_tags_are_bounded() {
        assert!(check_key("k").is_ok() && check_key(&"k".repeat(512)).is_ok());
        assert!(check_key("").is_err() && check_key(&"k".repeat(513)).is_err());
        assert!(tags(&[]).is_ok() && tags(&["a", "Größe", "a:b/c"]).is_ok());
        assert!(tags(&["t"; 64]).is_ok() && tags(&["t"; 65]).is_err());
        assert!(tags(&[&"t".repeat(256)]).is_ok());
        for odd in ["", "a b", "a,b", "a\nb", "a\u{0}", "a\u{a0}b", &"t".repeat(257)] {
            let told = tags(&["good", odd]).unwrap_err().to_string();
            assert!(told.contains("tags[1]"), "{odd:?}: {told}");
        }
    }

    proptest! {
        /// What passes is one field's value of its own, however many come together.
        #[test]
        fn a_tag_stays_one_tag(tag in "\\PC{1,20}") {
            if check_tags(std::slice::from_ref(&tag)).is_ok() {
                let field = format!("{tag},other");
                prop_assert!(http::HeaderValue::from_str(&field).is_ok() || !tag.is_ascii());
                prop_assert_eq!(field.split(',').map(str::trim).next(), Some(tag.as_str()));
            }
        }
    }
}
