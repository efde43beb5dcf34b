//! Components: digest, size and validity are checked before anything is stored (attack P5).

use crate::harness::{Server, component, digest};

#[tokio::test(flavor = "multi_thread")]
async fn a_component_comes_back_as_it_went() {
    let server = Server::start().await;
    let client = &server.operator;
    let blob = component("x");
    let path = format!("/v1/blobs/{}", digest(&blob));
    assert_eq!(client.send("HEAD", &path, &[], "").await.status, 404);
    let put = client.send("PUT", &path, &[], blob.clone()).await;
    assert_eq!(put.status, 201);
    assert_eq!(put.json()["bytes"], blob.len());
    assert_eq!(client.send("PUT", &path, &[], blob.clone()).await.status, 200);
    let head = client.send("HEAD", &path, &[], "").await;
    assert_eq!(head.status, 200);
    assert_eq!(head.fields["content-length"], blob.len().to_string().as_str());
    let got = client.get(&path).await;
    assert_eq!(got.body, blob);
    let server = server.restart().await;
    assert_eq!(server.operator.get(&path).await.body, blob);
    assert_eq!(server.edge("e").await.client.get(&path).await.body, blob);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_refused_and_not_stored() {
    let server = Server::start_with(|config| config.limits.blob_bytes = 10_000).await;
    let client = &server.operator;
    let blob = component("x");
    let wrong = format!("/v1/blobs/{}", "0".repeat(64));
    let reply = client.send("PUT", &wrong, &[], blob.clone()).await;
    assert_eq!(reply.status, 400);
    assert!(reply.json()["detail"].as_str().unwrap().contains(&digest(&blob)));
    for odd in [
        "/v1/blobs/x",
        "/v1/blobs/..%2f..%2fetc",
        &wrong.to_uppercase().replace("V1/BLOBS", "v1/blobs")[..60],
    ] {
        assert_eq!(client.send("PUT", odd, &[], blob.clone()).await.status, 400, "{odd}");
    }
    let large = vec![0_u8; 10_001];
    let path = format!("/v1/blobs/{}", digest(&large));
    assert_eq!(client.send("PUT", &path, &[], large).await.status, 413);
    let mut no_export = b"\0asm\x0d\0\x01\0".to_vec();
    no_export.extend_from_slice(&[0, 2, 1, b'm']);
    for (bad, says) in [
        (b"hello".to_vec(), "not WebAssembly"),
        (b"\0asm\x01\0\0\0".to_vec(), "core module"),
        ([component("x"), vec![7, 99]].concat(), "not a valid component"),
        (no_export, "wasi:http/incoming-handler"),
    ] {
        let path = format!("/v1/blobs/{}", digest(&bad));
        let reply = client.send("PUT", &path, &[], bad).await;
        assert_eq!(reply.status, 422);
        assert!(reply.faults()[0].contains(says), "{says} in {:?}", reply.faults());
        assert_eq!(client.get(&path).await.status, 404);
    }
    let stored = std::fs::read_dir(server.config.data_dir.join("blobs")).unwrap().count();
    let drafts = std::fs::read_dir(server.config.data_dir.join("drafts")).unwrap().count();
    assert_eq!((stored, drafts), (0, 0), "nothing is left of what was refused");
}
