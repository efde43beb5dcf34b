//! Compression: which form is chosen, what it does to fields and entity-tags, that content comes back
//! whole, and how it streams.

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody as Frames};
use proptest::prelude::*;
use std::io::{Read, Write};
use std::time::Duration;
use verge_cache::StreamBody;
use verge_cache::accept::{Accepted, Form};
use verge_cache::compress::{apply, choose, origin_etag, restore_conditions};
use verge_cache::compressed_body::{CompressedBody, Seen, peek};
use verge_cache::encoder::Encoder;
use verge_cache::vary::{self, Selection, Vary};
use verge_config::site::{Coding, CompressRule};

use crate::common::{headers, tapped};

fn decoded(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let read = match coding {
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut out),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut out),
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut out),
    };
    read.unwrap();
    out
}

/// As much as can be decoded of a stream that has not ended.
fn decoded_so_far(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    match coding {
        Coding::Zstd => {
            let mut decoder = zstd::stream::write::Decoder::new(Vec::new()).unwrap();
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            std::mem::take(decoder.get_mut())
        }
        Coding::Brotli => {
            // This decoder gives no more than one buffer of what it holds back.
            let mut decoder = brotli::DecompressorWriter::new(Vec::new(), 1 << 20);
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            std::mem::take(decoder.get_mut())
        }
        Coding::Gzip => {
            let mut decoder = flate2::write::GzDecoder::new(Vec::new());
            decoder.write_all(bytes).unwrap();
            decoder.flush().unwrap();
            std::mem::take(decoder.get_mut())
        }
    }
}

fn form(accept: &str) -> Form {
    Accepted::of(&headers(&[("accept-encoding", accept)])).form(&Coding::ALL)
}

#[test]
fn the_heaviest_coding_is_chosen_and_of_equal_ones_the_first() {
    use Coding::{Brotli, Gzip, Zstd};
    for (accept, expected) in [
        ("gzip, deflate, br, zstd", Form::Coded(Zstd)),
        ("gzip, deflate, br", Form::Coded(Brotli)),
        ("gzip", Form::Coded(Gzip)),
        ("X-GZIP", Form::Coded(Gzip)),
        ("gzip;q=1.0, br;q=0.8, zstd;q=0.1", Form::Coded(Gzip)),
        ("br;q=0.001, gzip;q=0", Form::Coded(Brotli)),
        ("br ; Q=0.5 , gzip;q=0.51", Form::Coded(Gzip)),
        ("gzip;q=0", Form::Identity),
        ("*", Form::Coded(Zstd)),
        ("*, zstd;q=0", Form::Coded(Brotli)),
        ("*;q=0.1, gzip;q=0.2", Form::Coded(Gzip)),
        ("*;q=0", Form::Identity),
        ("identity", Form::Identity),
        ("identity;q=1, gzip;q=0.9", Form::Identity),
        ("identity;q=0.5, gzip;q=0.9", Form::Coded(Gzip)),
        ("identity, gzip", Form::Coded(Gzip)),
        ("identity;q=0, br", Form::Coded(Brotli)),
        ("identity;q=0", Form::Identity),
        ("deflate", Form::Identity),
        ("", Form::Identity),
        (",;q=, ;", Form::Identity),
    ] {
        assert_eq!(form(accept), expected, "{accept}");
    }
    assert_eq!(Accepted::of(&HeaderMap::new()).form(&Coding::ALL), Form::Identity);
    let lines = headers(&[("accept-encoding", "gzip;q=0.5"), ("accept-encoding", "br")]);
    assert_eq!(Accepted::of(&lines).form(&Coding::ALL), Form::Coded(Brotli));
    // The site's order decides between equals.
    let gzip = Accepted::of(&headers(&[("accept-encoding", "br, gzip, zstd")]));
    assert_eq!(gzip.form(&[Gzip, Brotli]), Form::Coded(Gzip));
    assert_eq!(gzip.form(&[]), Form::Identity);
}

#[test]
fn what_is_not_ours_to_compress_is_left_alone() {
    let rule = CompressRule::default();
    let br = [("accept-encoding", "br")];
    let html = ("content-type", "text/html");
    let ask = |request: &[(&str, &str)], status: u16, response: &[(&str, &str)], length| {
        let status = StatusCode::from_u16(status).unwrap();
        choose(Some(&rule), &headers(request), status, &headers(response), length)
    };
    let coded = Some(Form::Coded(Coding::Brotli));
    for (status, response, length, expected) in [
        (200, &[html][..], Some(1024), coded),
        (200, &[html], None, coded),
        (404, &[html], Some(1024), coded),
        (200, &[html], Some(1023), None),
        (206, &[html], Some(9999), None),
        (204, &[html], None, None),
        (304, &[html], None, None),
        (416, &[html], Some(9999), None),
        (200, &[], Some(9999), None),
        (200, &[("content-type", "image/png")], Some(9999), None),
        (200, &[html, ("content-encoding", "gzip")], Some(9999), None),
        (200, &[html, ("content-encoding", "identity")], Some(9999), None),
        (200, &[html, ("content-range", "bytes 0-1/2")], Some(9999), None),
        (200, &[html, ("cache-control", "public, No-Transform")], Some(9999), None),
        (200, &[html, ("cache-control", "x=\"no-transform\"")], Some(9999), coded),
    ] {
        assert_eq!(
            ask(&br, status, response, length),
            expected,
            "{status} {response:?} {length:?}"
        );
    }
    assert_eq!(ask(&[], 200, &[html], Some(9999)), Some(Form::Identity));
    let untouched = [br[0], ("cache-control", "no-transform")];
    assert_eq!(ask(&untouched, 200, &[html], Some(9999)), None);
    assert_eq!(choose(None, &headers(&br), StatusCode::OK, &headers(&[html]), None), None);
}

#[test]
fn fields_become_those_of_the_form() {
    let source = [
        ("content-type", "text/html"),
        ("content-length", "5000"),
        ("accept-ranges", "bytes"),
        ("etag", "\"abc\""),
        ("vary", "Accept-Language"),
        ("vary", "Origin"),
        ("digest", "x"),
        ("content-md5", "x"),
        ("repr-digest", "x"),
        ("content-digest", "x"),
    ];
    let mut map = headers(&source);
    apply(&mut map, Form::Coded(Coding::Brotli));
    let expected = headers(&[
        ("content-type", "text/html"),
        ("content-encoding", "br"),
        ("etag", "\"abc--br\""),
        ("vary", "Accept-Language, Origin, Accept-Encoding"),
    ]);
    assert_eq!(map, expected);
    apply(&mut map, Form::Coded(Coding::Brotli));
    assert_eq!(map, expected, "again changes nothing");
    // Identity only varies.
    let mut map = headers(&source[..4]);
    apply(&mut map, Form::Identity);
    let mut expected = headers(&source[..4]);
    expected.insert("vary", "Accept-Encoding".parse().unwrap());
    assert_eq!(map, expected);
    for kept in ["*", "accept-encoding", "a, ACCEPT-Encoding ,b"] {
        let mut map = headers(&[("vary", kept), ("etag", "W/\"abc\"")]);
        apply(&mut map, Form::Coded(Coding::Gzip));
        assert_eq!(
            (&map["vary"], &map["etag"]),
            (&kept.parse().unwrap(), &"W/\"abc\"".parse().unwrap())
        );
    }
}

#[test]
fn entity_tags_can_be_undone() {
    let tag = |text: &str| HeaderValue::from_str(text).unwrap();
    assert_eq!(origin_etag(&tag("\"abc--zstd\"")), Some(tag("\"abc\"")));
    assert_eq!(origin_etag(&tag("\"--gzip\"")), Some(tag("\"\"")));
    for kept in ["\"abc\"", "\"abc-br\"", "W/\"abc--br\"", "abc--br", "\"", ""] {
        assert_eq!(origin_etag(&tag(kept)), None, "{kept}");
    }
    let mut request = headers(&[
        ("if-none-match", "\"a--br\", W/\"b\",\"c,--gzip\""),
        ("if-none-match", "*"),
        ("if-match", "\"x--zstd\""),
        ("if-range", "\"y\""),
    ]);
    restore_conditions(&mut request);
    let lines: Vec<_> = request.get_all("if-none-match").iter().collect();
    assert_eq!(lines, ["\"a\", W/\"b\", \"c,\"", "*"]);
    assert_eq!((&request["if-match"], &request["if-range"]), (&tag("\"x\""), &tag("\"y\"")));
}

/// Whoever would be given the same form selects the response, however it says so.
#[test]
fn a_form_is_selected_by_whom_it_would_be_given() {
    let Vary::Fields(names) = vary::parse(&headers(&[("vary", "accept-encoding, x-a")])) else {
        panic!("no fields")
    };
    let ask = |accept: &str| headers(&[("accept-encoding", accept), ("x-a", "1")]);
    let first = ask("gzip, br");
    let selection = Selection::of(&names, &first).in_form_of(&Coding::ALL, &first);
    for (accept, selects) in [
        ("gzip, br", true),
        ("br", true),
        ("br;q=0.5, gzip;q=0.4, deflate", true),
        ("gzip, br, zstd", false),
        ("gzip;q=1, br;q=0.5", false),
        ("identity", false),
    ] {
        let request = ask(accept);
        assert_eq!(selection.matches(&request), selects, "{accept}");
        assert_eq!(selection.like(&request).same(&selection), selects, "{accept}");
    }
    let mut other = ask("br");
    other.insert("x-a", "2".parse().unwrap());
    assert!(!selection.matches(&other));
    // The control: without a form, the codings that are named count.
    assert!(!Selection::of(&names, &first).matches(&ask("br")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However content is cut and flushed, it comes back; and what was flushed can be read at once.
    #[test]
    fn content_comes_back(pieces in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..3000), 1usize..40, any::<bool>()), 0..8), known: bool) {
        let content: Vec<u8> = pieces.iter().flat_map(|(bytes, times, _)| bytes.repeat(*times)).collect();
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding, known.then_some(content.len() as u64)).unwrap();
            let (mut out, mut taken) = (Vec::new(), Vec::new());
            for (bytes, times, flush) in &pieces {
                taken.extend(bytes.repeat(*times));
                out.extend_from_slice(&encoder.push(&bytes.repeat(*times)).unwrap());
                if *flush {
                    out.extend_from_slice(&encoder.flush().unwrap());
                    prop_assert!(decoded_so_far(coding, &out) == taken, "{}", coding);
                }
            }
            out.extend_from_slice(&encoder.finish().unwrap());
            prop_assert!(decoded(coding, &out) == content, "{}", coding);
        }
    }

    /// Any lists and any fields: a form or none, and entity-tags that can be undone.
    #[test]
    fn choosing_is_total(accept in "[ -~]{0,60}", tag in "\"[!#-~]{0,20}\"", kind in "[ -~]{0,30}", any in proptest::collection::vec(0x80u8.., 0..20)) {
        let mut request = headers(&[("accept-encoding", &accept)]);
        request.append("accept-encoding", HeaderValue::from_bytes(&any).unwrap());
        request.append("if-none-match", HeaderValue::from_bytes(&any).unwrap());
        let response = headers(&[("content-type", &kind), ("etag", &tag)]);
        let _ = choose(Some(&CompressRule::default()), &request, StatusCode::OK, &response, None);
        restore_conditions(&mut request);
        prop_assert_eq!(request["if-none-match"].as_bytes(), &any[..]);
        for coding in Coding::ALL {
            let mut coded = response.clone();
            apply(&mut coded, Form::Coded(coding));
            let original = origin_etag(&response["etag"]).is_some();
            prop_assert!(original || origin_etag(&coded["etag"]).as_ref() == Some(&response["etag"]));
        }
    }
}

fn compressed(coding: Coding, source: StreamBody) -> CompressedBody {
    CompressedBody::new(source, Encoder::new(coding, None).unwrap())
}

fn full(bytes: impl Into<Bytes>) -> StreamBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn what_has_come_is_sent_on_when_the_source_pauses() {
    for coding in Coding::ALL {
        let (tap, source) = tapped();
        let mut body = compressed(coding, source);
        assert!(body.frame().now_or_never().is_none(), "nothing yet");
        let (mut out, mut sent) = (Vec::new(), String::new());
        for line in ["one\n", "two\n", "three\n"] {
            sent.push_str(line);
            tap.send(Ok(line.into())).unwrap();
            while let Some(frame) = body.frame().now_or_never() {
                out.extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
            }
            // The piece was taken in a turn of its own.
            while decoded_so_far(coding, &out).len() < sent.len() {
                let frame = body.frame().await.unwrap().unwrap();
                out.extend_from_slice(&frame.into_data().unwrap());
            }
            assert_eq!(decoded_so_far(coding, &out), sent.as_bytes());
        }
        drop(tap);
        out.extend_from_slice(&body.collect().await.unwrap().to_bytes());
        assert_eq!(decoded(coding, &out), sent.as_bytes());
    }
}

#[tokio::test]
async fn an_error_of_the_source_is_passed_on_and_ends_it() {
    for coding in Coding::ALL {
        let (tap, source) = tapped();
        let mut body = compressed(coding, source);
        tap.send(Ok("half".into())).unwrap();
        tap.send(Err("reset".into())).unwrap();
        let error = loop {
            match body.frame().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.to_string(), "reset");
        // Above all no end of content that would make it look whole.
        assert!(body.frame().await.is_none());
    }
}

#[tokio::test]
async fn trailers_come_last_and_empty_content_is_whole() {
    let trailers = headers(&[("x-sum", "1")]);
    let frames = vec![Ok(Frame::data(Bytes::from("abc"))), Ok(Frame::trailers(trailers.clone()))];
    let source = Frames::new(futures::stream::iter(frames)).boxed_unsync();
    let collected = compressed(Coding::Gzip, source).collect().await.unwrap();
    assert_eq!(collected.trailers(), Some(&trailers));
    assert_eq!(decoded(Coding::Gzip, &collected.to_bytes()), b"abc");
    for coding in Coding::ALL {
        let out = compressed(coding, full("")).collect().await.unwrap().to_bytes();
        assert_eq!(decoded(coding, &out), b"");
    }
}

#[tokio::test]
async fn large_content_gives_others_their_turn() {
    // Much of the same compresses to nothing for many pieces on end: each of them is a turn.
    let content = vec![b'a'; 4 * 1024 * 1024];
    let mut body = compressed(Coding::Zstd, full(content.clone()));
    let mut turns = 0;
    let mut out = Vec::new();
    std::future::poll_fn(|cx| {
        loop {
            match std::pin::Pin::new(&mut body).poll_frame(cx) {
                std::task::Poll::Ready(Some(frame)) => {
                    out.extend_from_slice(&frame.unwrap().into_data().unwrap());
                }
                std::task::Poll::Ready(None) => return std::task::Poll::Ready(()),
                std::task::Poll::Pending => {
                    turns += 1;
                    return std::task::Poll::Pending;
                }
            }
        }
    })
    .await;
    assert!(turns >= 16, "{turns}");
    assert!(decoded(Coding::Zstd, &out) == content);
}

#[tokio::test]
async fn a_first_look_loses_nothing_and_does_not_wait_for_long() {
    let patience = Duration::from_secs(60);
    let (seen, body) = peek(full("short"), 1024, patience).await;
    assert_eq!(seen, Seen::Whole(5));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "short");

    let (seen, body) = peek(full(vec![b'x'; 5000]), 1024, patience).await;
    assert_eq!(seen, Seen::AtLeast(5000));
    assert_eq!(body.collect().await.unwrap().to_bytes().len(), 5000);

    // A source that is slow with its content is waited for no longer than told.
    let (tap, source) = tapped();
    tap.send(Ok("slow".into())).unwrap();
    let (seen, body) = peek(source, 1024, Duration::from_millis(5)).await;
    assert_eq!(seen, Seen::AtLeast(4));
    tap.send(Ok(" end".into())).unwrap();
    drop(tap);
    assert_eq!(body.collect().await.unwrap().to_bytes(), "slow end");

    let (tap, source) = tapped();
    tap.send(Ok("half".into())).unwrap();
    tap.send(Err("reset".into())).unwrap();
    let (seen, mut body) = peek(source, 1024, patience).await;
    assert_eq!(seen, Seen::AtLeast(4));
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    assert_eq!(body.frame().await.unwrap().unwrap_err().to_string(), "reset");
    assert!(body.frame().await.is_none());
}
