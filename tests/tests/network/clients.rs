//! Clients as their makers publish them, through interception, with the flags that a user would give
//! and nothing else: no client is told of a proxy or an authority.

use harness::cache::CLIENTS;
use harness::{Matchlock, Output, Sandbox, Site};

/// What the servers get in place of the placeholder.
const VALUE: &str = "sk-clients-4f1d0c5a9b";

/// A client, its command, and what its output must contain.
type Client = (&'static str, &'static str, &'static [&'static str]);

/// Each fetches with its defaults. `$KEY` is the placeholder of a secret.
const FETCHES: &[Client] = &[
    ("curl, HTTP/2", "curl -sS https://www.good.test/hello", &["hello over HTTP/2.0"]),
    ("curl, HTTP/1.1", "curl -sS --http1.1 https://www.good.test/who", &["www.good.test by www.good.test"]),
    ("curl, without TLS", "curl -sS http://www.good.test/hello", &["hello over HTTP/1.1"]),
    ("curl, by IPv6", "curl -sS -6 'https://web.good.test/reflect?six'", &["reflect?six"]),
    (
        "curl, a host that has only IPv6",
        "curl -sS https://six.good.test/reflect",
        &["\"sni\": \"six.good.test\""],
    ),
    (
        "curl, by an alias",
        "curl -sS https://alias.good.test/reflect",
        &["\"X-Client-Sni\", \"alias.good.test\""],
    ),
    (
        "curl, bearer",
        "curl -sS -H \"Authorization: Bearer $KEY\" https://web.good.test/reflect?of=curl",
        &["of=curl"],
    ),
    ("curl, basic", "curl -sS -u \"name:$KEY\" https://web.good.test/challenge?of=basic", &["name:"]),
    (
        "curl, many at once",
        "curl -sS --parallel -o /dev/null -w '%{http_code} ' 'https://www.good.test/hello?[1-20]'",
        &["200 200 200"],
    ),
    (
        "curl, redirections",
        "curl -sSL 'https://web.good.test/status/302?location=https://www.good.test/hello'",
        &["hello"],
    ),
    (
        "openssl, HTTP/1.0",
        "printf 'GET /hello HTTP/1.0\\r\\nHost: www.good.test\\r\\n\\r\\n' | openssl s_client -quiet -connect www.good.test:443 -servername www.good.test 2>/dev/null",
        &["hello"],
    ),
    ("go", "gofetch https://www.good.test/hello", &["HTTP/2.0 200", "hello"]),
    (
        "go, bearer",
        "gofetch https://web.good.test/reflect?of=go \"Authorization: Bearer $KEY\"",
        &["HTTP/1.1 200", "of=go"],
    ),
    (
        "node, fetch",
        "node -e 'fetch(\"https://www.good.test/hello\").then(r => r.text()).then(console.log)'",
        &["hello over"],
    ),
    (
        "node, bearer",
        "node -e 'fetch(\"https://web.good.test/reflect?of=node\", {method: \"POST\", body: \"hi\", headers: {\"x-api-key\": process.env.KEY}}).then(r => r.json()).then(r => console.log(r.length, r.target))'",
        &["2 /reflect?of=node"],
    ),
    (
        "node, WebSocket",
        "node -e 'const w = new WebSocket(\"wss://ws.good.test/node\"); w.onopen = () => w.send(\"hi\"); w.onmessage = m => { console.log(\"got\", m.data); w.close() }'",
        &["got hi"],
    ),
    (
        "git, clone",
        "cd /tmp && git clone -q https://git.good.test/git/repo.git && cat repo/README && wc -c < repo/noise",
        &["from the repository", "3145728"],
    ),
    (
        "git, push with a token",
        "cd /tmp && git clone -q \"https://x:$KEY@git.good.test/git/repo.git\" pushed && cd pushed && git -c user.name=g -c user.email=g@x.test commit -q --allow-empty -m more && git push -q origin HEAD:pushed && git ls-remote origin pushed",
        &["refs/heads/pushed"],
    ),
    (
        "pip",
        "python3 -m pip install -q --root-user-action ignore --index-url https://pypi.good.test/simple --target /tmp/pip lockpick && PYTHONPATH=/tmp/pip python3 -c 'import lockpick; print(lockpick.VALUE)'",
        &["installed from the index"],
    ),
];

/// Those that take long to start where the CPU is emulated.
const SLOW: &[Client] = &[
    ("java", "java -cp /usr/local/lib/java Fetch https://www.good.test/hello", &["HTTP_2 200", "hello"]),
    (
        "npm",
        "mkdir /tmp/npm && cd /tmp/npm && npm install --silent --registry https://npm.good.test/ lockpick && node -p 'require(\"lockpick\")'",
        &["installed from the registry"],
    ),
];

/// The same, of Python.
const PYTHON: &[Client] = &[
    (
        "urllib",
        "import urllib.request as u; print(u.urlopen('https://www.good.test/hello').read())",
        &["hello over HTTP/1.1"],
    ),
    (
        "requests, basic, bodies, a session",
        "import os, requests; s = requests.Session(); s.auth = ('name', os.environ['KEY'])\n\
         for n in range(3): print(s.post('https://web.good.test/reflect?of=requests', data=b'x' * 100000 * n).json()['length'])",
        &["0\n100000\n200000"],
    ),
    (
        "requests, a stream",
        "import requests\nwith requests.get('https://web.good.test/blob/3000000?as=chunked', stream=True) as r: print(sum(map(len, r.iter_content(4096))))",
        &["3000000"],
    ),
    (
        "httpx, HTTP/2",
        "import httpx; c = httpx.Client(http2=True); r = c.get('https://www.good.test/hello'); print(r.http_version, r.text)",
        &["HTTP/2 hello over HTTP/2.0"],
    ),
    (
        "httpx, many streams of one connection",
        "import asyncio, httpx, os\n\
         async def main():\n\
         \x20async with httpx.AsyncClient(http2=True) as c:\n\
         \x20 got = await asyncio.gather(*[c.get(f'https://api.good.test/reflect?of=httpx{n}', headers={'x-api-key': os.environ['KEY']}) for n in range(30)])\n\
         \x20 print(sorted(int(r.json()['target'].split('httpx')[1]) for r in got) == list(range(30)), got[0].http_version)\n\
         asyncio.run(main())",
        &["True HTTP/2"],
    ),
    (
        "openai, a streamed answer",
        "import os, openai; c = openai.OpenAI(base_url='https://openai.good.test/v1', api_key=os.environ['KEY'])\n\
         for part in c.chat.completions.create(model='m', stream=True, messages=[{'role': 'user', 'content': 'say ' + os.environ['KEY'][:15]}]):\n\
         \x20print(part.choices[0].delta.content or '', end='')",
        &["You said: say SANDBOX_SECRET_"],
    ),
    (
        "websockets",
        "import asyncio, websockets\n\
         async def main():\n\
         \x20async with websockets.connect('wss://ws.good.test/python', max_size=None) as w:\n\
         \x20 await w.send('text'); print(await w.recv())\n\
         \x20 await w.send(b'b' * 2000000); print(len(await w.recv()))\n\
         \x20 await (await w.ping()); print('pong')\n\
         asyncio.run(main())",
        &["text\n2000000\npong"],
    ),
    (
        "grpc",
        "import grpc, os\n\
         c = grpc.ssl_channel_credentials(open(os.environ['SSL_CERT_FILE'], 'rb').read())\n\
         with grpc.secure_channel('grpc.good.test:443', c) as channel:\n\
         \x20once = channel.unary_unary('/Echo/Once')\n\
         \x20answer, call = once.with_call(b'one', metadata=[('authorization', 'Bearer ' + os.environ['KEY'])])\n\
         \x20print(answer, call.trailing_metadata()[0])\n\
         \x20print(list(channel.unary_stream('/Echo/Stream')(b'x')))\n\
         \x20print(list(channel.stream_stream('/Echo/Chat')(iter([b'a', b'b' * 10, b'c']))))\n\
         \x20print(len(once(b'm' * 2000000)))\n\
         \x20try: channel.unary_unary('/Echo/Fail')(b'')\n\
         \x20except grpc.RpcError as error: print(error.code(), error.details())",
        &["b'one'", "x-trailer", "b'2 x'", "b'bbbbbbbbbb', b'c'", "2000000", "NOT_FOUND no such thing"],
    ),
];

/// The hosts that get the secret.
const SECRET: &str = "KEY@web.good.test,api.good.test,openai.good.test,git.good.test,grpc.good.test";

fn sandbox(matchlock: &Matchlock) -> Sandbox<'_> {
    let flags = ["--memory", "1024", "--allow-host", "*.good.test", "--secret", SECRET];
    Sandbox::start(matchlock, CLIENTS, &flags)
}

fn all_work<'a>(outputs: impl Iterator<Item = (&'a Client, Output)>) {
    let mut failures = String::new();
    for ((name, _, expected), output) in outputs {
        let (out, err) = (output.stdout_text(), output.stderr_text());
        eprintln!("{name}: {:?}", output.duration);
        if output.code != Some(0) || !expected.iter().all(|text| out.contains(text)) {
            failures += &format!("\n== {name}: {:?}\n{out}\n{err}", output.code);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn unmodified_clients_work_and_their_servers_get_the_secret() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]).with_variable("KEY", VALUE);
    let sandbox = sandbox(&matchlock);
    all_work(FETCHES.iter().map(|client| (client, sandbox.sh(client.1))));
    all_work(PYTHON.iter().map(|client| (client, sandbox.python(client.1))));
    servers_got_the_value(site);
    site.assert_unseen("SANDBOX_SECRET_", |line| line["target"] != "/v1/chat/completions");
}

#[test]
fn unmodified_clients_that_take_long_to_start_work_too() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]).with_variable("KEY", VALUE);
    let sandbox = sandbox(&matchlock);
    all_work(SLOW.iter().map(|client| (client, sandbox.sh(client.1))));
}

/// Where the placeholder was in a head, and nowhere else.
fn servers_got_the_value(site: &Site) {
    let header = |target: &str, name: &str| {
        let request = site.requests(target).pop().unwrap_or_else(|| panic!("no request for {target}"));
        let headers = request["headers"].as_array().expect("they are a list");
        let header =
            headers.iter().find(|header| header[0].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name)));
        header.and_then(|header| header[1].as_str()).unwrap_or_default().to_owned()
    };
    let basic = super::secrets::basic("name", VALUE);
    assert_eq!(header("of=curl", "authorization"), format!("Bearer {VALUE}"));
    assert_eq!(header("of=go", "authorization"), format!("Bearer {VALUE}"));
    assert_eq!(header("of=node", "x-api-key"), VALUE);
    assert_eq!(header("of=httpx7", "x-api-key"), VALUE);
    assert_eq!(header("of=basic", "authorization"), basic);
    assert_eq!(header("of=requests", "authorization"), basic);
    assert_eq!(header("/v1/chat/completions", "authorization"), format!("Bearer {VALUE}"));
    let asked = site.requests("/v1/chat/completions").pop().expect("it was asked");
    let said = asked["body"].as_str().expect("the body is text");
    assert!(said.contains("SANDBOX_SECRET_") && !said.contains(VALUE), "bodies stay as they are: {said}");
    let push = super::secrets::basic("x", VALUE);
    assert_eq!(header("git-receive-pack", "authorization"), push);
    let call = &site.service("grpc")[0];
    assert!(call["metadata"].to_string().contains(&format!("Bearer {VALUE}")), "{call}");
}
