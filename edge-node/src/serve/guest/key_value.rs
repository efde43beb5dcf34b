//! The key-value store of a guest's site. A preview has its site's: it is to be seen with what is there.

use super::Guest;
use crate::kv::KvError;
use bytes::Bytes;
use verge_config::kv::KeyPage;
use verge_handlers::Unavailable;

impl Guest {
    pub(super) async fn kv_get(self, key: String) -> Result<Option<Bytes>, Unavailable> {
        Ok(self.edge.kv.get(&self.site.site.name, &key).await?)
    }

    pub(super) async fn kv_set(self, key: String, value: Option<Bytes>) -> Result<(), Unavailable> {
        Ok(self.edge.kv.set(&self.site.site.name, key, value).await?)
    }

    pub(super) async fn kv_keys(self, skip: u64) -> Result<KeyPage, Unavailable> {
        Ok(self.edge.kv.keys(&self.site.site.name, skip).await?)
    }
}

impl From<KvError> for Unavailable {
    fn from(error: KvError) -> Unavailable {
        Unavailable(error.to_string())
    }
}
