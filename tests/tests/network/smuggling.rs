//! Row 11 of the promises: requests within requests, on either side of us.

use harness::cache::CLIENTS;
use harness::{Sandbox, Site};

use crate::attacks::{assert_refused, attempts};

/// Each hides a second request for `/reflect?smuggled` behind a first one.
const REQUESTS: &str = r"
HIDDEN = 'GET /reflect?smuggled HTTP/1.1\r\nHost: web.good.test\r\n\r\n'
START = 'POST /reflect?outer HTTP/1.1\r\nHost: web.good.test\r\n'
def both(name, request):
    for secure in [True, False]:
        connect = (lambda: tls('web.good.test', 'web.good.test')) if secure else (lambda: plain('web.good.test'))
        attempt(f'{name} {secure}', lambda: answer(send(connect(), request)))
both('control', START + 'Content-Length: 2\r\n\r\nhi')
both('control chunked', START + 'Transfer-Encoding: chunked\r\n\r\n2;ext=1\r\nhi\r\n0\r\nX-T: 1\r\n\r\n')
both('CL and TE', START + f'Content-Length: {len(HIDDEN) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}')
both('TE and CL', START + f'Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{HIDDEN}')
both('two lengths', START + f'Content-Length: 0\r\nContent-Length: {len(HIDDEN)}\r\n\r\n{HIDDEN}')
both('a list of lengths', START + f'Content-Length: 0, {len(HIDDEN)}\r\n\r\n{HIDDEN}')
for value in ['+0', '-0', '0x0', '0 0', '0,0', '00000000000000000000000', '1e0', '18446744073709551616', '']:
    both(f'length {value!r}', START + f'Content-Length: {value}\r\n\r\n{HIDDEN}' if value != '' else START + f'Content-Length:\r\n\r\n{HIDDEN}')
for value in ['xchunked', 'chunked, identity', 'identity, chunked', 'chunked, chunked', 'gzip', 'chunked;q=1', '\x0bchunked', 'chunked\x00', 'identity']:
    both(f'coding {value!r}', START + f'Transfer-Encoding: {value}\r\n\r\n0\r\n\r\n{HIDDEN}')
both('space before the colon', START + f'Transfer-Encoding : chunked\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('folded', START + f'X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('bare LF', (START + f'Content-Length: 0\r\n\r\n{HIDDEN}').replace('\r\n', '\n'))
both('one bare LF', START + f'X: y\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('bare CR', START + f'X: y\rTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('NUL', START + f'X: y\0z\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('odd name', START + f'X(: y\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('no name', START + f': y\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
both('no colon', START + f'nothing\r\nContent-Length: 0\r\n\r\n{HIDDEN}')
for size in ['-1', '0x2', '2 ', ' 2', 'ffffffffffffffff1', '', '2\x00', '+2']:
    both(f'chunk size {size!r}', START + f'Transfer-Encoding: chunked\r\n\r\n{size}\r\nhi\r\n0\r\n\r\n{HIDDEN}')
both('chunk without its end', START + f'Transfer-Encoding: chunked\r\n\r\n2\r\nhiXX0\r\n\r\n{HIDDEN}')
both('chunks with bare LF', START + f'Transfer-Encoding: chunked\r\n\r\n2\nhi\n0\n\n{HIDDEN}')
both('huge head', START + 'X: ' + 'y' * (2 << 20) + '\r\n\r\n')
both('many headers', START + 'X: y\r\n' * 20000 + '\r\n')
both('huge target', 'GET /' + 'a' * (1 << 20) + ' HTTP/1.1\r\nHost: web.good.test\r\n\r\n')
both('HTTP/0.9', 'GET /reflect?smuggled\r\n')
both('HTTP/1.2', 'GET /reflect?smuggled HTTP/1.2\r\nHost: web.good.test\r\n\r\n')
both('HTTP/2.0 in words', 'GET /reflect?smuggled HTTP/2.0\r\nHost: web.good.test\r\n\r\n')
both('spaces in the target', 'GET /reflect?smuggled x HTTP/1.1\r\nHost: web.good.test\r\n\r\n')
both('length in HTTP/1.0 chunked', f'POST /reflect?outer HTTP/1.0\r\nHost: web.good.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}')
both('trailer that frames', START + f'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nContent-Length: 9\r\nHost: evil.test\r\n\r\n')
def upgraded(path, upgrade):
    return answer(send(tls('web.good.test', 'web.good.test'), f'GET {path} HTTP/1.1\r\nHost: web.good.test\r\nConnection: upgrade\r\nUpgrade: {upgrade}\r\n\r\n'))
attempt('control upgrade refused by the server raw', lambda: upgraded('/status/200', 'raw'))
for upgrade in ['raw', 'h2c', 'TLS/1.0', 'websocket, raw']:
    attempt(f'upgrade to {upgrade}', lambda: upgraded('/upgrade', upgrade).replace('101', '200', 1))
";

#[test]
fn row_11_requests_hidden_in_the_framing_of_others() {
    let site = Site::shared();
    let matchlock = site.matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "web.good.test"]);
    let attempts = attempts(&sandbox, REQUESTS);
    assert!(attempts.len() > 90, "{}", attempts.len());
    // Some forms may be understood and written anew, as long as nothing hidden becomes a request.
    let harmless =
        ["trailer that frames", "coding 'identity'", "control upgrade", "length '00000000000000000000000'"];
    let strict =
        attempts.into_iter().filter(|(name, _)| !harmless.iter().any(|start| name.starts_with(start)));
    assert_refused(&strict.collect::<Vec<_>>());
    let smuggled = site.requests("smuggled");
    assert!(smuggled.is_empty(), "{smuggled:?}");
    for request in site.requests("outer") {
        let framing = |name: &str| {
            let headers = request["headers"].as_array().expect("a list");
            headers.iter().filter(|it| it[0].as_str().is_some_and(|it| it.eq_ignore_ascii_case(name))).count()
        };
        assert!(framing("content-length") + framing("transfer-encoding") <= 1, "{request}");
    }
}

#[test]
fn row_11_responses_that_are_none_end_as_errors_and_the_next_request_is_served() {
    let matchlock = Site::shared().matchlock().with_images(&[CLIENTS]);
    let sandbox = Sandbox::start(&matchlock, CLIENTS, &["--allow-host", "web.good.test"]);
    let program = "
for secure in [True, False]:
    for name in ['both-lengths', 'two-lengths', 'folded', 'nul', 'huge-head', 'many-headers', 'short-body', 'bad-chunk', 'no-http', 'nothing',
                 'surprise-switch', 'informational-flood', 'bare-lf', 'until-close']:
        connect = (lambda: tls('web.good.test', 'web.good.test')) if secure else (lambda: plain('web.good.test'))
        attempt(f'{name} {secure}', lambda: answer(send(connect(), get('web.good.test', f'/bad/{name}'))))
        attempt(f'control after {name} {secure}', lambda: answer(send(connect(), get('web.good.test', '/status/200'))))
";
    // What is read to its end by closing is a response, and bare line feeds have one meaning only.
    let lenient = ["until-close", "bare-lf", "informational-flood", "folded"];
    let attempts = attempts(&sandbox, program);
    assert_refused(
        &attempts
            .into_iter()
            .filter(|(name, _)| !lenient.iter().any(|it| name.starts_with(it)))
            .collect::<Vec<_>>(),
    );
}
