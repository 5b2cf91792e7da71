//! Other Rust servers, each set up as its documentation recommends: `peer NAME [PORT]`, what `--bench peers` loads.
//!
//! Every one answers `GET /` with laneway's body and, as far as it allows, laneway's header fields, from one
//! worker. It announces itself on stderr with the events that laneway does. It pins nothing: what starts it
//! does. The libraries' own defaults stand wherever a line below does not say why they don't.

use std::env;
use std::error::Error;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer};
use axum::Router;
use axum::routing::get;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use may_minihttp::HttpService;
use socket2::{Domain, Protocol, Socket, Type};

type Outcome = Result<(), Box<dyn Error>>;

const BODY: &str = "Hello from laneway\n";
const TEXT: &str = "text/plain; charset=utf-8";
/// may_minihttp takes whole lines.
const TEXT_LINE: &str = "Content-Type: text/plain; charset=utf-8";
const BACKLOG: i32 = 4096;
/// Longer than any measurement: actix-web's 5 seconds would close connections that are meant to be idle.
const KEEP_ALIVE: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("peer: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let name = arguments.first().map_or("", String::as_str);
    let port: u16 = arguments.get(1).map_or(Ok(0), |port| port.parse())?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match name {
        "may_minihttp" => serve_may_minihttp(address),
        "hyper" => serve_hyper(address),
        "axum" => serve_axum(address),
        "actix-web" => serve_actix_web(address),
        _ => Err(format!("{name:?} is none of may_minihttp, hyper, axum, actix-web").into()),
    }
}

/// What the accepted sockets inherit is set here, once: it costs no call for each connection.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn announce(address: SocketAddr) {
    eprintln!(r#"{{"level":"INFO","message":"listening","address":"{address}"}}"#);
    eprintln!(r#"{{"level":"INFO","message":"ready"}}"#);
}

/// It binds by itself, with a backlog of 1024, and does not say where: it needs a port.
fn serve_may_minihttp(address: SocketAddr) -> Outcome {
    #[derive(Clone)]
    struct Greeting;

    impl HttpService for Greeting {
        fn call(
            &mut self,
            _: may_minihttp::Request,
            response: &mut may_minihttp::Response,
        ) -> io::Result<()> {
            response.header(TEXT_LINE).body(BODY);
            Ok(())
        }
    }

    if address.port() == 0 {
        return Err("may_minihttp needs a port: it cannot report one that the kernel chose".into());
    }
    // Stacks of 32 KiB are may's default, and what may_minihttp's own benchmarks use.
    may::config().set_workers(1).set_worker_pin(false);
    let server = may_minihttp::HttpServer(Greeting).start(address)?;
    announce(address);
    server.join().map_err(|_| "its listener panicked")?;
    Ok(())
}

fn serve_hyper(address: SocketAddr) -> Outcome {
    async fn greet(_: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        let mut response = Response::new(Full::new(Bytes::from_static(BODY.as_bytes())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
        Ok(response)
    }

    current_thread()?.block_on(async {
        let listener = tokio_listener(address)?;
        let mut http = http1::Builder::new();
        // Without it, each response of a pipelined batch is a send of its own.
        http.pipeline_flush(true);
        loop {
            let (socket, _) = listener.accept().await?;
            let connection = http.serve_connection(TokioIo::new(socket), service_fn(greet));
            // An error is the client's going away, which is no failure.
            tokio::spawn(async { drop(connection.await) });
        }
    })
}

/// `axum::serve` has no settings for connections: this is all there is to set up.
fn serve_axum(address: SocketAddr) -> Outcome {
    current_thread()?.block_on(async {
        let listener = tokio_listener(address)?;
        // A string's content type is the one wanted.
        let app = Router::new().route("/", get(async || BODY));
        axum::serve(listener, app).await?;
        Ok(())
    })
}

fn serve_actix_web(address: SocketAddr) -> Outcome {
    async fn greet() -> HttpResponse {
        HttpResponse::Ok().content_type(TEXT).body(BODY)
    }

    actix_web::rt::System::new().block_on(async {
        let listener = listen(address)?;
        let address = listener.local_addr()?;
        let app = || App::new().route("/", actix_web::web::get().to(greet));
        let server = HttpServer::new(app).workers(1).keep_alive(KEEP_ALIVE).listen(listener)?.run();
        announce(address);
        server.await?;
        Ok(())
    })
}

fn current_thread() -> io::Result<tokio::runtime::Runtime> {
    // Timers are not enabled: hyper and axum use them only for time limits that must be asked for.
    tokio::runtime::Builder::new_current_thread().enable_io().build()
}

/// Announces: a client that connects from now on is accepted.
fn tokio_listener(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let listener = listen(address)?;
    announce(listener.local_addr()?);
    tokio::net::TcpListener::from_std(listener)
}
