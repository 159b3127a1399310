use std::time::Duration;

use proptest::prelude::*;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The lines of `pieces`, which arrive one by one, and whether it ended well.
async fn lines(pieces: Vec<Vec<u8>>, limit: usize) -> (Vec<Vec<u8>>, bool) {
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let writing = tokio::spawn(async move {
        for piece in pieces {
            if writer.write_all(&piece).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut lines = Lines::with_limit(reader, limit);
    let mut all = Vec::new();
    let well = loop {
        match lines.next().await {
            Ok(Some(line)) => all.push(line.to_vec()),
            Ok(None) => break true,
            Err(_) => break false,
        }
        assert!(lines.buffer.capacity() <= 2 * (limit + CHUNK), "{}", lines.buffer.capacity());
    };
    writing.abort();
    (all, well)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However the bytes are cut on their way, the lines are the same.
    #[test]
    fn any_cut_gives_the_same_lines(
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..40),
        cuts in prop::collection::vec(1usize..700, 1..30),
        tail in prop::collection::vec(any::<u8>(), 0..30),
    ) {
        let strip = |bytes: &Vec<u8>| bytes.iter().copied().filter(|byte| *byte != b'\n').collect::<Vec<u8>>();
        let expected: Vec<Vec<u8>> = texts.iter().map(strip).collect();
        let mut bytes: Vec<u8> = expected.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
        bytes.extend(strip(&tail));
        let mut pieces = Vec::new();
        for cut in cuts.iter().cycle() {
            if bytes.is_empty() {
                break;
            }
            pieces.push(bytes.drain(..bytes.len().min(*cut)).collect());
        }
        let (found, well) = block_on(lines(pieces, 400));
        prop_assert!(well);
        prop_assert_eq!(found, expected);
    }

    /// A line over the limit is an error as soon as that is known, wherever its end is.
    #[test]
    fn no_line_over_the_limit_is_kept(limit in 1usize..2_000_000, over in 1usize..2_000_000) {
        let line = vec![b'x'; limit + over];
        let (found, well) = block_on(lines(vec![b"short\n".to_vec(), line, b"\n".to_vec()], limit.max(5)));
        prop_assert_eq!(found, [b"short".to_vec()]);
        prop_assert!(!well || limit + over <= 5);
        let line = [vec![b'y'; limit], b"\n".to_vec()].concat();
        let (found, well) = block_on(lines(vec![line], limit));
        prop_assert!(well && found.len() == 1 && found[0].len() == limit);
    }
}

#[tokio::test]
async fn the_end_is_seen_behind_lines_that_wait() {
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let mut lines = Lines::new(reader);
    writer.write_all(b"one\ntwo\nthree\n").await.unwrap();
    assert_eq!(lines.next().await.unwrap(), Some(&b"one"[..]));
    assert!(timeout(Duration::from_millis(20), lines.ended()).await.is_err());
    assert_eq!(lines.next().await.unwrap(), Some(&b"two"[..]));
    drop(writer);
    timeout(Duration::from_secs(10), lines.ended()).await.unwrap();
    assert_eq!(lines.next().await.unwrap(), Some(&b"three"[..]));
    assert_eq!(lines.next().await.unwrap(), None);
}

#[tokio::test]
async fn a_long_line_does_not_keep_its_memory() {
    let (mut writer, reader) = tokio::io::duplex(1 << 20);
    let mut lines = Lines::new(reader);
    tokio::spawn(async move {
        writer.write_all(&vec![b'x'; 16 * KEEP]).await.unwrap();
        writer.write_all(b"\n").await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        writer.write_all(b"short\n").await.unwrap();
    });
    assert_eq!(lines.next().await.unwrap().unwrap().len(), 16 * KEEP);
    assert_eq!(lines.next().await.unwrap().unwrap(), b"short");
    assert!(lines.buffer.capacity() <= KEEP);
}
