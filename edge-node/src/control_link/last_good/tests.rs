//! State that is damaged in any way: the version before, or nothing, and never another document.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::*;
use proptest::prelude::*;

fn record(site: &str, revision: u64) -> SiteRecord {
    let document = SiteDocument {
        site: site.to_owned(),
        domains: vec![format!("v{revision}.example")],
        ..SiteDocument::default()
    };
    SiteRecord {
        history: "h".to_owned(),
        revision: Revision(revision),
        site: site.to_owned(),
        version: revision,
        document: Arc::new(document),
    }
}

fn only(kept: &LastGood) -> Kept {
    let mut sites = kept.sites().unwrap();
    assert_eq!(sites.len(), 1);
    sites.remove(0)
}

#[test]
fn keeps_this_version_and_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let kept = LastGood::open(folder.path()).unwrap();
    for revision in 1..=3 {
        kept.save_site(&record("shop", revision)).unwrap();
    }
    let found = only(&kept);
    assert_eq!(found.candidates, [record("shop", 3), record("shop", 2)]);
    assert!(!found.damaged);
    kept.remove_site("shop").unwrap();
    kept.remove_site("shop").unwrap();
    assert!(kept.sites().unwrap().is_empty());
}

#[test]
fn is_private_and_for_one_edge_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    let kept = LastGood::open(&root).unwrap();
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o777, 0o700);
    kept.save_credential(&Secret::new("canary")).unwrap();
    let mode = fs::metadata(root.join("credential")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(LastGood::open(&root), Err(StateError::InUse { .. })));
    drop(kept);
    let kept = LastGood::open(&root).unwrap();
    assert_eq!(kept.credential(), Some(Secret::new("canary")));
}

#[test]
fn a_file_of_another_site_is_not_this_ones() {
    let folder = tempfile::tempdir().unwrap();
    let kept = LastGood::open(folder.path()).unwrap();
    kept.save_site(&record("a", 1)).unwrap();
    fs::rename(kept.site_file("a"), kept.site_file("b")).unwrap();
    let found = only(&kept);
    assert!(found.candidates.is_empty() && found.damaged);
}

#[test]
fn what_a_crash_leaves_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    drop(LastGood::open(folder.path()).unwrap());
    let left = folder.path().join("sites/shop.site.tmp");
    fs::write(&left, b"half").unwrap();
    let kept = LastGood::open(folder.path()).unwrap();
    assert!(!left.exists());
    assert!(kept.sites().unwrap().is_empty());
}

#[test]
fn names_cannot_lead_out_of_the_folder() {
    for name in ["", "..", "../x", "a/b", "A", "a.b", "a\0", "ä", &"a".repeat(64)] {
        assert!(!is_site_name(name), "{name:?}");
    }
    assert!(is_site_name("shop-1") && is_site_name(&"a".repeat(63)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn damage_gives_the_version_before_or_nothing(which in 0..4_usize, at in any::<prop::sample::Index>(), flip in 1..=255_u8, cut in any::<bool>()) {
        let folder = tempfile::tempdir().unwrap();
        let kept = LastGood::open(folder.path()).unwrap();
        kept.save_site(&record("shop", 1)).unwrap();
        kept.save_site(&record("shop", 2)).unwrap();
        let position = Position { history: "h".to_owned(), applied: Revision(2), sites: 1, ..Position::default() };
        kept.save_position(&position).unwrap();
        kept.save_credential(&Secret::new("secret")).unwrap();
        let current = kept.site_file("shop");
        let path = [current.clone(), previous_of(&current), folder.path().join("position"), folder.path().join("credential")][which].clone();
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        fs::write(&path, &bytes).unwrap();

        let found = only(&kept);
        let expected = match which {
            0 => vec![record("shop", 1)],
            1 => vec![record("shop", 2)],
            _ => vec![record("shop", 2), record("shop", 1)],
        };
        prop_assert_eq!(&found.candidates, &expected);
        prop_assert_eq!(found.damaged, which == 0);
        prop_assert_eq!(kept.position(), if which == 2 { Position::default() } else { position });
        prop_assert_eq!(kept.credential(), (which != 3).then(|| Secret::new("secret")));
    }
}
