//! What is taken of a nodes file that is good, bad, or being written.

use super::*;
use std::fs;
use std::path::Path;

const TWO: &str = "apiVersion: v1\nkind: List\nitems:\n- kind: Node\n  metadata:\n    name: node1\n  spec:\n    \
    podCIDRs: [\"10.244.1.0/24\"]\n- kind: Node\n  metadata:\n    name: node2\n";

fn source(folder: &Path) -> FileSource {
    FileSource::new(folder.join("nodes.yaml"), NodeName::new("node1").unwrap())
}

fn names(reading: &Reading<'_>) -> Vec<String> {
    reading
        .snapshot
        .map(|snapshot| snapshot.nodes.keys().map(ToString::to_string).collect())
        .unwrap_or_default()
}

/// Writes as somebody did who has left the file alone since.
fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes).unwrap();
    settle(path);
}

fn settle(path: &Path) {
    let earlier = std::time::SystemTime::now() - 2 * SETTLE;
    File::options().write(true).open(path).unwrap().set_modified(earlier).unwrap();
}

#[test]
fn whatever_happens_to_the_file_the_last_good_state_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    let mut source = source(folder.path());
    assert!(source.read().problem.unwrap().contains("kubectl get nodes"));
    assert!(source.read().snapshot.is_none());
    write(&path, TWO);
    let reading = source.read();
    assert_eq!((names(&reading), reading.problem), (vec!["node1".to_owned(), "node2".to_owned()], None));
    let cut = &TWO.as_bytes()[..TWO.len() - "- kind: Node\n  metadata:\n    name: node2\n".len()];
    let broken: [(&[u8], &str); 7] = [
        (b"", "lists no node"),
        (cut, "waiting for the rest"),
        (b"kind: List\nitems:\n- metadata: {name: \"node", "half-written"),
        (b"kind: List\nitems: []\n", "lists no node"),
        (b"kind: Node\nmetadata: {name: node2}\n", "not this one, `node1`"),
        (b"kind: Pod\n", "Pod"),
        (b"\xff\xfe", "UTF-8"),
    ];
    for (bytes, expected) in broken {
        fs::write(&path, bytes).unwrap();
        let reading = source.read();
        assert_eq!(names(&reading).len(), 2);
        let problem = reading.problem.unwrap_or_default();
        assert!(problem.contains(expected), "{problem}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(names(&source.read()).len(), 2);
    fs::create_dir(&path).unwrap();
    assert!(source.read().problem.unwrap().contains("no regular file"));
}

#[test]
fn a_shorter_file_counts_once_it_has_been_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    write(&path, TWO);
    let mut source = source(folder.path());
    assert_eq!(names(&source.read()).len(), 2);
    fs::write(&path, "kind: Node\nmetadata: {name: node1}\n").unwrap();
    assert_eq!(names(&source.read()).len(), 2);
    assert!(source.settled_at.is_some());
    settle(&path);
    let reading = source.read();
    assert_eq!((names(&reading).len(), reading.problem), (1, None));
    assert_eq!(source.settled_at, None);
}

fn node(name: &str, address: &str) -> String {
    format!(
        "- metadata: {{name: {name}}}\n  status:\n    addresses:\n    - type: InternalIP\n      address: {address}\n"
    )
}

#[test]
fn of_a_file_written_just_now_the_first_read_takes_all_nodes_but_the_last_and_does_not_call_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    let text = format!("kind: List\nitems:\n{}{}", node("node1", "192.0.2.11"), node("node2", "192.0.2.1"));
    fs::write(&path, &text).unwrap();
    let mut source = source(folder.path());
    let reading = source.read();
    assert_eq!((names(&reading), reading.whole), (vec!["node1".to_owned()], false));
    assert!(reading.problem.unwrap().contains("waiting for the rest"));
    settle(&path);
    let reading = source.read();
    assert_eq!((names(&reading).len(), reading.whole, reading.problem), (2, true, None));
}

#[test]
fn a_known_node_whose_address_is_cut_is_not_believed_and_new_nodes_before_the_last_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    let (one, two) = (node("node1", "192.0.2.11"), node("node2", "192.0.2.12"));
    let (three, four) = (node("node3", "192.0.2.13"), node("node4", "192.0.2.14"));
    let mut source = source(folder.path());
    write(&path, format!("kind: List\nitems:\n{one}{two}"));
    let good = source.read().snapshot.cloned();
    fs::write(&path, format!("kind: List\nitems:\n{one}{}", two.replace(".12", ".1"))).unwrap();
    assert_eq!(source.read().snapshot.cloned(), good);
    fs::write(&path, format!("kind: List\nitems:\n{one}{two}{three}{four}")).unwrap();
    assert_eq!(names(&source.read()), ["node1", "node2", "node3"]);
    settle(&path);
    assert_eq!(names(&source.read()).len(), 4);
}

#[test]
fn a_file_that_is_the_same_as_before_is_no_problem_though_it_was_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    write(&path, TWO);
    let mut source = source(folder.path());
    assert_eq!(source.read().problem, None);
    fs::write(&path, TWO).unwrap();
    assert_eq!(source.read().problem, None);
}

#[test]
fn a_heartbeat_is_no_news_and_another_address_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    let beating = |beat: u32, address: &str| {
        let node = node("node1", address);
        write(
            &path,
            format!("kind: List\nitems:\n{node}    conditions: [{{lastHeartbeatTime: \"{beat}\"}}]\n"),
        );
    };
    let mut source = source(folder.path());
    beating(1, "192.0.2.11");
    assert!(source.has_news());
    beating(22, "192.0.2.11");
    assert!(!source.has_news());
    beating(333, "192.0.2.12");
    assert!(source.has_news());
}

#[test]
fn a_bad_file_that_was_left_alone_is_parsed_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodes.yaml");
    write(&path, "kind: Pod\n");
    let mut source = source(folder.path());
    let problem = source.read().problem.unwrap();
    assert!(source.seen.is_some());
    assert_eq!(source.read().problem.unwrap(), problem);
}

#[test]
fn a_fifo_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, folder.path().join("nodes.yaml"), mode).unwrap();
    assert!(source(folder.path()).read().problem.unwrap().contains("no regular file"));
}

#[test]
fn a_file_that_is_too_long_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let file = File::create(folder.path().join("nodes.yaml")).unwrap();
    file.set_len(MAX_BYTES + 1).unwrap();
    assert!(source(folder.path()).read().problem.unwrap().contains("longer than"));
}
