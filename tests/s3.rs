//! Guards against what S3 answers and other stores do not, with a server that speaks as much of it as is needed.

use crate::{cli::Place, support::*};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
};
use strongroom::store::{Objects, Put};

/// What comes of the first put of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Done,
    /// 409, and nothing is stored.
    Conflict,
    /// 409, and it is stored all the same.
    ConflictAndDone,
}

struct Server {
    clay: Clay,
    first: Mutex<First>,
    /// The status of each answer to the puts of a name.
    puts: Mutex<BTreeMap<String, Vec<u16>>>,
}

struct Request {
    method: String,
    /// The name of an object, without the bucket's.
    name: String,
    query: String,
    range: Option<String>,
    body: Vec<u8>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let mut words = line.split_whitespace();
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let (mut range, mut length) = (None, 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.to_owned()),
                "content-length" => length = value.parse().ok()?,
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let name = path.trim_start_matches('/').split_once('/').unwrap_or_default().1.to_owned();
        Some(Self { method, name, query: query.replace("%2F", "/"), range, body })
    }
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn refusal(status: u16, code: &str) -> Answer {
    (status, Vec::new(), format!("<Error><Code>{code}</Code></Error>").into_bytes())
}

impl Server {
    /// Listens until the tests end; returns the port.
    fn start() -> (Arc<Self>, u16) {
        let server = Arc::new(Self { clay: Clay::default(), first: Mutex::new(First::Done), puts: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream.unwrap()));
            }
        });
        (server, port)
    }

    fn serve(&self, mut stream: TcpStream) {
        let Some(request) = Request::read(&stream) else { return };
        let (status, headers, body) = self.answer(&request);
        let mut head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nETag: \"x\"\r\n");
        for (name, value) in [("Last-Modified", "Wed, 01 Jan 2025 00:00:00 GMT".to_owned())].iter().chain(&headers) {
            head += &format!("{name}: {value}\r\n");
        }
        if !headers.iter().any(|(name, _)| *name == "Content-Length") {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        drop(stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()));
    }

    fn answer(&self, request: &Request) -> Answer {
        let found = || self.clay.get(&request.name, None);
        match request.method.as_str() {
            "PUT" => self.put(request),
            "GET" if request.name.is_empty() => self.list(&request.query),
            "GET" | "HEAD" => match (found(), &request.range) {
                (Err(_), _) => refusal(404, "NoSuchKey"),
                (Ok(bytes), None) if request.method == "GET" => (200, Vec::new(), bytes.to_vec()),
                (Ok(bytes), None) => (200, vec![("Content-Length", bytes.len().to_string())], Vec::new()),
                (Ok(bytes), Some(range)) => {
                    let (from, to) = range.trim_start_matches("bytes=").split_once('-').unwrap();
                    let from: usize = from.parse().unwrap();
                    let to = to.parse::<usize>().map_or(bytes.len(), |to| (to + 1).min(bytes.len()));
                    if from >= to {
                        return refusal(416, "InvalidRange");
                    }
                    let told = format!("bytes {from}-{}/{}", to - 1, bytes.len());
                    (206, vec![("Content-Range", told)], bytes[from..to].to_vec())
                }
            },
            _ => {
                self.clay.delete(&request.name).unwrap();
                (204, Vec::new(), Vec::new())
            }
        }
    }

    fn put(&self, request: &Request) -> Answer {
        let mut puts = self.puts.lock().unwrap();
        let answered = puts.entry(request.name.clone()).or_default();
        // Which of several writers wins is not asked here.
        let is_probe = request.name.contains("probe/");
        let first = if answered.is_empty() && !is_probe { *self.first.lock().unwrap() } else { First::Done };
        let put = || self.clay.put_if_absent(&request.name, vec![request.body.clone().into()]).unwrap();
        let answer = match first {
            First::Conflict => refusal(409, "ConditionalRequestConflict"),
            First::ConflictAndDone => {
                put();
                refusal(409, "ConditionalRequestConflict")
            }
            First::Done if put() == Put::Created => (200, Vec::new(), Vec::new()),
            First::Done => refusal(412, "PreconditionFailed"),
        };
        answered.push(answer.0);
        answer
    }

    fn list(&self, query: &str) -> Answer {
        let prefix = query.split('&').find_map(|one| one.strip_prefix("prefix=")).unwrap_or_default();
        let listed = self.clay.list(prefix.trim_end_matches('/')).unwrap();
        let objects: String = listed
            .iter()
            .map(|object| {
                format!(
                    "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2025-01-01T00:00:00Z</LastModified><ETag>x</ETag></Contents>",
                    object.name, object.size_bytes
                )
            })
            .collect();
        let body = format!("<ListBucketResult><IsTruncated>false</IsTruncated>{objects}</ListBucketResult>");
        (200, Vec::new(), body.into_bytes())
    }
}

/// S3 answers so where several write a name at once. Taken for "there is one", it made of a pack that nobody stored
/// a part of a snapshot.
#[test]
fn a_conflict_answer_to_a_create_is_repeated_until_something_stands_there() {
    for first in [First::Conflict, First::ConflictAndDone] {
        let (server, port) = Server::start();
        *server.first.lock().unwrap() = first;
        let place = Place::empty();
        place.ok(&["key", "generate", place.path("key").to_str().unwrap()]);
        let data = place.path("data");
        let bytes = Random(1).bytes(300_000);
        std::fs::write(&data, &bytes).unwrap();
        let ok = |arguments: &[&str]| {
            let mut command: Command = place.command(arguments);
            command.env("STRONGROOM_REPO", "s3://bucket/repository");
            command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}")).env("AWS_REGION", "us-east-1");
            command.env("AWS_ACCESS_KEY_ID", "x").env("AWS_SECRET_ACCESS_KEY", "x").env("AWS_DISABLE_BULK_DELETE", "1");
            let output = command.output().unwrap();
            assert!(output.status.success(), "{first:?} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        ok(&["init"]);
        ok(&["tenant", "create", "t"]);
        ok(&["backup", "--source", "s", data.to_str().unwrap()]);
        let latest = format!("latest:{}", data.to_str().unwrap());
        let cold = place.path("cold");
        assert!(ok(&["cat", &latest, "--cache-dir", cold.to_str().unwrap()]) == bytes, "{first:?}: other bytes");
        let puts = server.puts.lock().unwrap();
        let again = if first == First::Conflict { 200 } else { 412 };
        for (name, answers) in puts.iter().filter(|(name, _)| !name.contains("probe/")) {
            assert!(answers.starts_with(&[409, again]), "{first:?}: {name} was put with these answers: {answers:?}");
        }
        for kind in ["/ledger/", "/data/", "/meta/", "/keys/"] {
            assert!(puts.keys().any(|name| name.contains(kind)), "{kind}");
        }
    }
}
