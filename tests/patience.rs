//! Guards against a store that is away for a while: what may pass is waited out and told, what waiting cannot help is
//! not, and nobody waits long at a wrong address.

use crate::{cli::Place, support::*};
use bytes::Bytes;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};
use strongroom::{
    environment::SharedEnvironment,
    store::{
        Fault, Faulty, Listed, Objects, Patience, Put, Retried, SharedObjects, Silent, StoreError, StoreErrorKind,
        Waiting,
    },
};

/// A store that answers with an error between two times.
struct Away {
    inner: SharedObjects,
    environment: SharedEnvironment,
    kind: StoreErrorKind,
    from_ns: i64,
    until_ns: i64,
    calls: AtomicU64,
}

impl Away {
    fn answer<T>(&self, call: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.calls.fetch_add(1, SeqCst);
        match (self.from_ns..self.until_ns).contains(&self.environment.now_ns()) {
            true => Err(StoreError::new(self.kind, "x", "away")),
            false => call(),
        }
    }
}

impl Objects for Away {
    fn put_if_absent(&self, name: &str, parts: Vec<Bytes>) -> Result<Put, StoreError> {
        self.answer(|| self.inner.put_if_absent(name, parts.clone()))
    }
    fn get(&self, name: &str, range: Option<std::ops::Range<u64>>) -> Result<Bytes, StoreError> {
        self.answer(|| self.inner.get(name, range.clone()))
    }
    fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.answer(|| self.inner.list(prefix))
    }
    fn modified_ns(&self, name: &str) -> Result<i64, StoreError> {
        self.answer(|| self.inner.modified_ns(name))
    }
    fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.answer(|| self.inner.delete(name))
    }
}

/// Writes down what it is told, and stops a wait after so many looks.
#[derive(Default)]
struct Watch {
    told: Mutex<Vec<String>>,
    looks: AtomicU64,
    stops_after: Option<u64>,
}

impl Waiting for Watch {
    fn begins(&self, _: &StoreError, at_most: Duration) {
        self.told.lock().unwrap().push(format!("waits up to {} s", at_most.as_secs()));
    }
    fn ends(&self, answered: bool) {
        self.told.lock().unwrap().push(format!("ends, answered: {answered}"));
    }
    fn is_stopped(&self) -> bool {
        let looks = self.looks.fetch_add(1, SeqCst);
        self.stops_after.is_some_and(|after| looks >= after)
    }
}

const SECOND_NS: i64 = 1_000_000_000;

struct Scene {
    environment: SharedEnvironment,
    away: Arc<Away>,
    watch: Arc<Watch>,
    retried: Retried,
    began_ns: i64,
}

/// A store that is away from the first second on, or from the start, for so many seconds.
fn scene(
    seed: u64,
    kind: StoreErrorKind,
    answers_first: bool,
    seconds: i64,
    patience: Patience,
    watch: Watch,
) -> Scene {
    let environment: SharedEnvironment = Seeded::new(seed);
    let began_ns = environment.now_ns();
    let from_ns = if answers_first { began_ns + SECOND_NS } else { 0 };
    let away = Arc::new(Away {
        inner: Arc::new(Clay::default()),
        environment: environment.clone(),
        kind,
        from_ns,
        until_ns: began_ns.saturating_add(seconds.saturating_mul(SECOND_NS)),
        calls: AtomicU64::new(0),
    });
    let watch = Arc::new(watch);
    let retried = Retried::new(away.clone(), environment.clone(), patience, watch.clone());
    if answers_first {
        retried.put_if_absent("x", vec!["x".into()]).unwrap();
        environment.sleep(Duration::from_secs(2));
    }
    Scene { environment, away, watch, retried, began_ns }
}

impl Scene {
    fn seconds(&self) -> i64 {
        (self.environment.now_ns() - self.began_ns) / SECOND_NS
    }
}

#[test]
fn minutes_without_an_answer_are_waited_out_and_told_once() {
    for seed in 0..20 {
        for kind in [StoreErrorKind::Unreachable, StoreErrorKind::Unknown, StoreErrorKind::NoSuchHost] {
            let scene = scene(seed, kind, true, 800, Patience::default(), Watch::default());
            assert_eq!(scene.retried.get("x", None).unwrap(), "x", "seed {seed}");
            let told = scene.watch.told.lock().unwrap().clone();
            assert_eq!(told, ["waits up to 900 s", "ends, answered: true"], "seed {seed}");
            // Growing pauses: the store is not stormed; and soon after it is back, that is noticed.
            let calls = scene.away.calls.load(SeqCst);
            assert!((80..300).contains(&calls), "seed {seed}: {calls} calls");
            assert!(scene.seconds() <= 812, "seed {seed}: noticed after {} s", scene.seconds());
        }
    }
}

#[test]
fn an_outage_without_end_ends_in_an_error_that_says_how_long_was_waited() {
    let scene = scene(1, StoreErrorKind::Unreachable, true, i64::MAX, Patience::default(), Watch::default());
    let error = scene.retried.get("x", None).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Unreachable);
    assert!(error.why.contains("waited 900 s"), "{error}");
    assert_eq!(*scene.watch.told.lock().unwrap(), ["waits up to 900 s", "ends, answered: false"]);
    // Whoever asks next, to find out what came of it, does not wait as long again.
    let before = scene.seconds();
    (0..10).for_each(|_| drop(scene.retried.get("x", None).unwrap_err()));
    assert!(scene.seconds() - before < 5, "waited for {} s more", scene.seconds() - before);
}

#[test]
fn a_wrong_address_is_told_within_seconds() {
    for seed in 0..20 {
        let scene = scene(seed, StoreErrorKind::Unreachable, false, i64::MAX, Patience::default(), Watch::default());
        assert_eq!(scene.retried.get("x", None).unwrap_err().kind, StoreErrorKind::Unreachable);
        assert!((9..=15).contains(&scene.seconds()), "seed {seed}: after {} s", scene.seconds());
    }
}

#[test]
fn what_waiting_cannot_help_is_asked_for_once() {
    use StoreErrorKind::{NoSuchHost, NotFound, NotWritable, Other, Refused, Short, Shortage};
    for kind in [NotFound, Short, Refused, NotWritable, Shortage, Other, NoSuchHost] {
        let scene = scene(1, kind, false, i64::MAX, Patience::default(), Watch::default());
        assert_eq!(scene.retried.get("x", None).unwrap_err().kind, kind);
        assert_eq!(scene.away.calls.load(SeqCst), 1, "{kind:?}");
        assert!(scene.watch.told.lock().unwrap().is_empty(), "{kind:?}");
    }
    let none = Patience::of(Duration::ZERO);
    let scene = scene(1, StoreErrorKind::Unreachable, true, i64::MAX, none, Watch::default());
    let before = scene.away.calls.load(SeqCst);
    scene.retried.get("x", None).unwrap_err();
    assert_eq!(scene.away.calls.load(SeqCst) - before, 1);
}

#[test]
fn a_short_hiccup_is_nobodys_business() {
    let scene = scene(1, StoreErrorKind::Unreachable, true, 2, Patience::default(), Watch::default());
    scene.retried.get("x", None).unwrap();
    assert!(scene.watch.told.lock().unwrap().is_empty());
}

#[test]
fn a_wait_ends_when_somebody_stops_it() {
    let watch = Watch { stops_after: Some(50), ..Watch::default() };
    let scene = scene(1, StoreErrorKind::Unreachable, true, i64::MAX, Patience::default(), watch);
    let error = scene.retried.get("x", None).unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::Stopped);
    assert_eq!(strongroom::error::Error::from(error).kind, strongroom::error::Kind::Interrupted);
    assert!(scene.seconds() < 20, "after {} s", scene.seconds());
}

/// The answer to a put was lost, and it is repeated: what is there is what was put, and the caller must look.
#[test]
fn a_put_that_is_repeated_says_exists_and_is_whole() {
    let clay = Arc::new(Clay::default());
    let faulty = Faulty::new(clay.clone(), |call, _, _| (call == 0).then_some(Fault::LostAnswer));
    let retried = Retried::new(Arc::new(faulty), Seeded::new(1), Patience::default(), Arc::new(Silent));
    assert_eq!(retried.put_if_absent("x", vec!["hello ".into(), "world".into()]).unwrap(), Put::Exists);
    assert_eq!(clay.get("x", None).unwrap(), "hello world");
}

/// Stands between a client and a server, and refuses everybody for a while.
struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    server: String,
    /// The outage begins when so many bytes have come from the server, or gone to it.
    limit: Mutex<Option<(bool, u64)>>,
    passed: AtomicU64,
    down: AtomicBool,
    outages: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    fn before(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            server: server.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            limit: Mutex::default(),
            passed: 0.into(),
            down: false.into(),
            outages: 0.into(),
            streams: Mutex::default(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || accepting.accept(listener, port));
        Self { port, shared }
    }
    /// Goes away once so many bytes have come (`true`) or gone.
    fn goes_away(&self, down: bool, bytes: u64) {
        self.shared.passed.store(0, SeqCst);
        *self.shared.limit.lock().unwrap() = Some((down, bytes));
    }
    fn comes_back(&self) {
        self.shared.down.store(false, SeqCst);
    }
    fn outages(&self) -> u64 {
        self.shared.outages.load(SeqCst)
    }
}

impl Shared {
    fn accept(self: Arc<Self>, listener: TcpListener, port: u16) {
        let mut listener = Some(listener);
        listener.as_ref().unwrap().set_nonblocking(true).unwrap();
        loop {
            if self.down.load(SeqCst) {
                // Refused from here on; and those that are there are cut off.
                listener = None;
                self.streams.lock().unwrap().drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                std::thread::sleep(Duration::from_millis(5));
                continue;
            }
            if listener.is_none() {
                let again = TcpListener::bind(("127.0.0.1", port)).unwrap();
                again.set_nonblocking(true).unwrap();
                listener = Some(again);
            }
            match listener.as_ref().unwrap().accept() {
                Ok((client, _)) => self.clone().join(client),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    fn join(self: Arc<Self>, client: TcpStream) {
        client.set_nonblocking(false).unwrap();
        let server = TcpStream::connect(&self.server).unwrap();
        let mut streams = self.streams.lock().unwrap();
        streams.extend([client.try_clone().unwrap(), server.try_clone().unwrap()]);
        drop(streams);
        for (from, to, down) in [
            (client.try_clone().unwrap(), server.try_clone().unwrap(), false),
            (server.try_clone().unwrap(), client.try_clone().unwrap(), true),
        ] {
            let shared = self.clone();
            std::thread::spawn(move || shared.copy(from, to, down));
        }
    }
    fn copy(&self, mut from: TcpStream, mut to: TcpStream, down: bool) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            let mut limit = self.limit.lock().unwrap();
            if limit.is_some_and(|(direction, _)| direction == down) {
                let passed = self.passed.fetch_add(length as u64, SeqCst) + length as u64;
                if limit.is_some_and(|(_, bytes)| passed >= bytes) {
                    *limit = None;
                    self.outages.fetch_add(1, SeqCst);
                    self.down.store(true, SeqCst);
                    return;
                }
            }
            drop(limit);
            if to.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
        drop(to.shutdown(Shutdown::Both));
    }
}

/// Runs a command to its end, while the store is away; returns its exit code and what it said.
fn run(mut command: Command) -> (Option<i32>, String) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Reads what a command says until it says this.
fn read_until(stderr: &mut impl std::io::BufRead, what: &str, said: &mut String) {
    while !said.contains(what) {
        assert_ne!(stderr.read_line(said).unwrap(), 0, "it ends without {what}: {said}");
    }
}

#[test]
fn a_backup_a_restore_and_a_prune_survive_a_store_that_is_away() {
    let Ok(server) = std::env::var("AWS_ENDPOINT_URL") else {
        println!("not checked: AWS_ENDPOINT_URL names moto, as .ci/test starts it");
        return;
    };
    let long = std::env::var_os("STRONGROOM_TEST_LONG").is_some();
    let proxy = Proxy::before(&server);
    let place = Place::new();
    let repository = format!("s3://strongroom/away-{}", std::process::id());
    let command = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env("STRONGROOM_REPO", &repository).env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", proxy.port));
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
            command.env(name, std::env::var(name).unwrap_or_default());
        }
        command
    };
    let ok = |arguments: &[&str]| {
        let (code, said) = run(command(arguments));
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    };
    ok(&["init"]);
    ok(&["tenant", "create", "t"]);
    let (data, target) = (place.path("data"), place.path("restored"));
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), Random(1).bytes(48 << 20)).unwrap();
    let path = data.to_str().unwrap();
    let away = |down: bool, bytes: u64, arguments: &[&str], begins: &str, ends: &str| {
        let before = proxy.outages();
        proxy.goes_away(down, bytes);
        let mut child = command(arguments).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut stderr, mut said) = (std::io::BufReader::new(child.stderr.take().unwrap()), String::new());
        // However slow this machine is, it is away until that was told.
        read_until(&mut stderr, begins, &mut said);
        std::thread::sleep(Duration::from_secs(if long { 120 } else { 0 }));
        proxy.comes_back();
        stderr.read_to_string(&mut said).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}: {said}");
        assert_eq!(proxy.outages() - before, 1, "{arguments:?} moved too little to be interrupted");
        assert!(said.contains(begins) && said.contains(ends), "{arguments:?}: {said}");
    };
    let (begins, ends) = ("waiting, up to 15 min", "the store answers again");
    away(false, 20 << 20, &["backup", "--source", "s", path], begins, ends);
    // Another machine: nothing of it is at hand.
    let cold = place.path("cold");
    let arguments = ["restore", "latest", "--target", target.to_str().unwrap(), "--cache-dir", cold.to_str().unwrap()];
    away(true, 20 << 20, &arguments, begins, ends);
    let restored = target.join(path.trim_start_matches('/')).join("file");
    assert!(std::fs::read(restored).unwrap() == Random(1).bytes(48 << 20), "what was restored is something else");
    std::fs::write(data.join("file"), Random(2).bytes(8 << 20)).unwrap();
    let json = ("\"waiting_for_store\":{\"", "\"waiting_for_store\":null");
    let arguments = ["backup", "--source", "s", path, "--progress", "json"];
    away(false, 4 << 20, &arguments, json.0, json.1);
    ok(&["forget", "--keep-last", "1"]);
    // Some requests into it: each of them sends about 600 bytes.
    away(false, 9_000, &["prune"], begins, ends);
    ok(&["check", "--read-data"]);
    // Ctrl-C while it is away.
    proxy.goes_away(false, 2_000);
    std::fs::write(data.join("file"), Random(3).bytes(8 << 20)).unwrap();
    let mut child =
        command(&["backup", "--source", "s", path, "--progress", "json"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    read_until(&mut stderr, "waiting_for_store", &mut said);
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
}
