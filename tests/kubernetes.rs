//! On Kubernetes: the manifests of deploy/kubernetes, the variables that a pod finds in its environment, and a rolling
//! replacement behind a load balancer.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use harness::{
    Client, Front, Mode, NEW, OLD, Scratch, Server, Setup, Traffic, eventually, private_loopback,
    python_with, skip_without, skipped,
};
use laneway::config::{Config, Options, load};
use nix::sys::signal::SIGTERM;
use serde_json::{Value, json};

// How connections come to lanes, and what moves their bytes, has no part in it.
harness::in_mode!(threads, THREADS, [a_rolling_replacement_behind_haproxy_fails_no_request]);
harness::in_mode!(processes, PROCESSES, [a_rolling_replacement_behind_haproxy_fails_no_request]);

/// Versions whose schemas the manifests keep to: the oldest that has all of their keys, and the latest that is known.
const VERSIONS: [&str; 2] = ["1.27", "1.37"];
/// Of the Prometheus operator's, not of Kubernetes' own.
const CUSTOM: &str = "service-monitor.yaml";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes")
}

/// What a Python with `module` prints for `program`, with the names of these files. None, with a visible reason, without it.
fn python(module: &str, program: &str, files: &[PathBuf]) -> Option<String> {
    let output = Command::new(python_with(module)?).args(["-c", program]).args(files).output();
    let output = output.expect("run Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).expect("text"))
}

/// The documents of a manifest.
fn documents(file: &str) -> Option<Vec<Value>> {
    let program =
        "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let text = python("yaml", program, &[folder().join(file)])?;
    Some(serde_json::from_str(&text).expect("JSON"))
}

fn resources() -> Option<Vec<String>> {
    let kustomization = documents("kustomization.yaml")?.remove(0);
    let names = kustomization["resources"].as_array().expect("a list").iter();
    Some(names.map(|name| name.as_str().expect("a name").to_owned()).collect())
}

fn config() -> Config {
    let mut options = Options::default();
    options.file = Some(folder().join("config.toml"));
    load(&options).unwrap_or_else(|errors| panic!("{errors}")).config
}

#[test]
fn what_the_kustomization_names_is_there_and_nothing_else() {
    let Some(resources) = resources() else { return };
    let entries = fs::read_dir(folder()).expect("the folder");
    let there: BTreeSet<_> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    let others = ["kustomization.yaml".to_owned(), "config.toml".to_owned()];
    assert_eq!(there, resources.into_iter().chain(others).collect());
}

#[test]
fn the_manifests_keep_to_the_schemas_of_kubernetes() {
    let Some(resources) = resources() else { return };
    let files: Vec<_> =
        resources.iter().filter(|name| *name != CUSTOM).map(|name| folder().join(name)).collect();
    for version in VERSIONS {
        let program = format!(
            "import sys, yaml, kubernetes_validate\nfor name in sys.argv[1:]:\n  for it in yaml.safe_load_all(open(name)):\n    \
             kubernetes_validate.validate(it, '{version}', strict=True)\n    print(it['kind'])"
        );
        let Some(kinds) = python("kubernetes_validate", &program, &files) else { return };
        let kinds: BTreeSet<_> = kinds.lines().collect();
        let expected = [
            "Deployment",
            "HorizontalPodAutoscaler",
            "NetworkPolicy",
            "PodDisruptionBudget",
            "Service",
        ];
        assert_eq!(kinds, expected.into());
    }
}

#[test]
fn kubectl_builds_them() {
    if skip_without("kubectl") {
        return;
    }
    let output =
        Command::new("kubectl").arg("kustomize").arg(folder()).output().expect("run kubectl");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for kind in ["Deployment", "ConfigMap", "ServiceMonitor"] {
        assert!(told.contains(&format!("kind: {kind}\n")), "{told}");
    }
    assert!(told.contains("image: laneway:"), "{told}");
}

#[test]
fn the_configuration_of_the_config_map_passes_the_check() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let output = command.arg("check").arg("--config").arg(folder().join("config.toml")).output();
    let output = output.expect("run the server's binary");
    let told = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(told.contains("when the file has changed"), "{told}");
    let shipped = fs::read_to_string(folder().join("config.toml")).expect("read it");
    assert!(shipped.contains("reload_on_change = true"), "{shipped}");
}

/// What one manifest says and another, or the configuration, has to fit.
#[test]
fn the_manifests_and_the_configuration_fit_together() {
    let (Some(deployment), Some(services)) =
        (documents("deployment.yaml"), documents("service.yaml"))
    else {
        return;
    };
    let config = config();
    let pod = &deployment[0]["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let times = config.supervisor.drain_delay + config.supervisor.drain_timeout;
    assert!(!config.supervisor.drain_delay.is_zero());
    assert!(pod["terminationGracePeriodSeconds"].as_u64().expect("seconds") > times.as_secs());
    // It would wait twice.
    assert_eq!(container["lifecycle"], Value::Null);

    let (requests, limits) =
        (&container["resources"]["requests"], &container["resources"]["limits"]);
    assert_eq!(requests, limits);
    assert!(requests["cpu"].as_str().is_some_and(|cpus| cpus.parse::<u32>().is_ok()), "{requests}");
    assert!(!config.workers.pin);

    let port = |name: &str| {
        let ports = container["ports"].as_array().expect("ports");
        let port = ports.iter().find(|port| port["name"] == name).expect("a port of that name");
        port["containerPort"].as_u64().expect("a port")
    };
    assert_eq!(config.server.listen[0].to_string(), format!("0.0.0.0:{}", port("http")));
    assert_eq!(config.admin.listen[0].to_string(), format!("0.0.0.0:{}", port("admin")));
    let targets = services.iter().map(|service| &service["spec"]["ports"][0]["targetPort"]);
    assert_eq!(targets.collect::<Vec<_>>(), ["http", "admin"]);

    let probe = |name: &str| {
        let probe = &container[name];
        assert_eq!(probe["httpGet"]["port"], "admin");
        let of = |key: &str| probe[key].as_u64().expect("a number");
        (probe["httpGet"]["path"].clone(), of("periodSeconds") * of("failureThreshold"))
    };
    let (ready, live) = (probe("readinessProbe"), probe("livenessProbe"));
    assert_eq!((ready.0, live.0), ("/readyz".into(), "/healthz".into()));
    assert!(live.1 > 5 * ready.1, "liveness tolerates more than readiness");
    assert!(config.supervisor.drain_delay.as_secs() > ready.1, "it is told before it drains");

    let mounts = container["volumeMounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["name"] == "config").expect("the ConfigMap");
    assert_eq!((&mount["mountPath"], &mount["subPath"]), (&"/etc/laneway".into(), &Value::Null));
}

#[test]
fn the_variables_of_services_stop_no_server_and_a_setting_that_is_misspelt_does() {
    // Of services called laneway (with named ports), laneway-api, laneway-workers--count and laneway--x, as a kubelet makes
    // them; TCP, UDP and SCTP.
    let mut setup = Setup::bare().set("server.listen", "127.0.0.1:0").set("log.format", "json");
    for service in
        ["LANEWAY", "LANEWAY_API", "LANEWAY_WORKERS__COUNT", "LANEWAY__X", "LANEWAY_SERVER"]
    {
        setup = setup.env(&format!("{service}_SERVICE_HOST"), "10.96.0.7");
        setup = setup.env(&format!("{service}_SERVICE_PORT"), "8080");
        setup = setup.env(&format!("{service}_SERVICE_PORT_HTTP_ALT"), "8080");
        setup = setup.env(&format!("{service}_PORT"), "tcp://10.96.0.7:8080");
        for protocol in ["TCP", "UDP", "SCTP"] {
            let port = format!("{service}_PORT_8080_{protocol}");
            let lower = protocol.to_lowercase();
            setup = setup.env(&port, &format!("{lower}://[fd00::7]:8080"));
            setup = setup.env(&format!("{port}_PROTO"), &lower);
            setup = setup.env(&format!("{port}_PORT"), "8080");
            setup = setup.env(&format!("{port}_ADDR"), "fd00::7");
        }
    }
    let server = setup.start();
    assert_eq!(server.journal.named("configuration warning").len(), 0);
    assert_eq!(server.get("/").status, 200);

    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    let misspelt =
        command.arg("check").env("LANEWAY_WORKERS__CONUT", "2").current_dir("/").output();
    let misspelt = misspelt.expect("run the server's binary");
    let told = String::from_utf8_lossy(&misspelt.stderr);
    assert_eq!(misspelt.status.code(), Some(2), "{told}");
    assert!(told.contains("did you mean `count`?"), "{told}");
}

/// What podman makes of the Deployment. Its end is the pod's.
struct Pod(String);

impl Pod {
    /// A command of podman, which has two minutes.
    fn podman(words: &[&str]) -> Result<String, String> {
        let settings = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube.conf");
        // Limits that any machine allows: where podman may not raise its own, it starts nothing with the defaults.
        let limits =
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n";
        fs::write(&settings, limits).expect("write podman's settings");
        let mut command = Command::new("timeout");
        command.args(["120", "podman"]).args(words).env("CONTAINERS_CONF", settings);
        let output = command.stdin(Stdio::null()).output().expect("run podman");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let told = text(&output.stdout);
        if output.status.success() { Ok(told) } else { Err(told + &text(&output.stderr)) }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Pod::podman(&["pod", "rm", "--force", "--ignore", &format!("{}-pod-0", self.0)]);
        let _ = Pod::podman(&["volume", "rm", "--force", &self.0]);
        let _ = Pod::podman(&["rmi", "--force", &format!("localhost/{}", self.0)]);
    }
}

/// The Deployment and its ConfigMap as podman can have them: with an image that is here, addresses that no other test has,
/// and a probe that is executed, since podman would ask with a curl that the image doesn't have.
fn for_podman(mut deployment: Value, name: &str, at: SocketAddr) -> String {
    let config = fs::read_to_string(folder().join("config.toml")).expect("read it");
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name },
        "data": { "config.toml": config } });
    deployment["metadata"]["name"] = name.into();
    let pod = &mut deployment["spec"]["template"]["spec"];
    pod["hostNetwork"] = true.into();
    pod["volumes"][0]["configMap"]["name"] = name.into();
    let container = &mut pod["containers"][0];
    let keys = container.as_object_mut().expect("a container");
    // On the machine's own network there are no ports to map, and not every machine of the tests may set limits.
    for key in ["startupProbe", "readinessProbe", "resources", "ports"] {
        keys.remove(key);
    }
    let command = ["/laneway", "healthcheck", "--config", "/etc/laneway/config.toml"];
    container["livenessProbe"] = json!({ "exec": { "command": command } });
    container["image"] = format!("localhost/{name}").into();
    container["imagePullPolicy"] = "Never".into();
    container["env"] = json!([
        { "name": "LANEWAY_SERVER__LISTEN", "value": at.to_string() },
        { "name": "LANEWAY_ADMIN__LISTEN", "value": format!("{}:9180", at.ip()) },
        { "name": "LANEWAY_SUPERVISOR__DRAIN_DELAY", "value": "100ms" },
    ]);
    format!("{map}\n---\n{deployment}\n")
}

#[test]
fn podman_plays_the_deployment() {
    let binary = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/static/laneway");
    if !binary.is_file() {
        return skipped("there is no target/static/laneway: deploy/build-static makes it");
    }
    if skip_without("podman") {
        return;
    }
    let Some(mut deployment) = documents("deployment.yaml") else { return };
    let scratch = Scratch::new();
    let name = scratch.path().file_name().and_then(|name| name.to_str()).expect("a name");
    fs::copy(binary, scratch.path().join("laneway")).expect("copy the binary");
    let recipe = "FROM scratch\nCOPY laneway /laneway\nENV RUNTIME_DIRECTORY=/run\nENTRYPOINT [\"/laneway\"]\n\
                  CMD [\"--config\", \"/etc/laneway/config.toml\"]\n";
    scratch.write("Containerfile", recipe);
    let pod = Pod(name.to_owned());
    let at = private_loopback(8080);
    let manifest = scratch.write("play.yaml", for_podman(deployment.remove(0), name, at));
    let (context, manifest) =
        (scratch.path().display().to_string(), manifest.display().to_string());
    let image = format!("localhost/{name}");
    let built = Pod::podman(&["build", "--layers=false", "-q", "-t", &image, &context]);
    if let Err(reason) = built.and_then(|_| Pod::podman(&["kube", "play", &manifest])) {
        return skipped(format_args!("podman plays nothing here: {reason}"));
    }
    let container = format!("{name}-pod-0-laneway");
    eventually("the pod serves", || {
        let log = Pod::podman(&["logs", &container]).unwrap_or_default();
        let is_over = log.contains("not valid") || log.contains("\"stopped\"");
        assert!(!is_over, "{log}");
        TcpStream::connect(at).is_ok().then_some(())
    });
    assert_eq!(Client::connect(at).get("/").text(), "Hello from laneway\n");
    let admin = SocketAddr::new(at.ip(), 9180);
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    assert_eq!(Client::connect(admin).request(request).status, 200);
    // podman 4.3 would hand the probe's command to a shell, which the image doesn't have.
    let exec =
        ["exec", &container, "/laneway", "healthcheck", "--config", "/etc/laneway/config.toml"];
    Pod::podman(&exec).expect("it is healthy");
    Pod::podman(&["pod", "stop", "--time=60", &format!("{}-pod-0", pod.0)]).expect("stop it");
    let format = "--format={{.State.ExitCode}}";
    assert_eq!(Pod::podman(&["inspect", format, &container]), Ok("0".to_owned()));
}

/// One of the servers behind the load balancer: at which address, and what it answers.
fn instance(mode: Mode, at: SocketAddr, admin: SocketAddr, name: &str, text: &str) -> Server {
    let route = format!("text = {text:?}\nheaders = {{ X-Instance = \"{name}\" }}");
    let mode = if mode.is_threads() { "threads" } else { "processes" };
    let setup = Setup::bare().routes("").route("/", &route).set("workers.mode", mode).lanes(2);
    let setup = setup.set("server.listen", at).set("admin.listen", admin);
    setup.set("log.format", "json").set("supervisor.drain_delay", "1s").start()
}

fn a_rolling_replacement_behind_haproxy_fails_no_request(mode: Mode) {
    let addresses = [(); 2].map(|()| private_loopback(8080));
    let admin = addresses.map(|address| SocketAddr::new(address.ip(), 9180));
    let names = ["one", "two"];
    let servers = (0..2).map(|index| {
        let (at, admin) = (addresses[index], admin[index]);
        let check =
            format!("check addr {} port {} inter 100ms fall 2 rise 1", admin.ip(), admin.port());
        format!("  server {} {at} {check}\n", names[index])
    });
    // What fails is not tried again.
    let config = format!(
        "listen front\n  mode http\n  bind ADDRESS\n  retries 0\n  option httpchk GET /readyz\n  http-check expect status 200\n{}",
        servers.collect::<String>()
    );
    let start = |index: usize, version: &str, text| {
        instance(mode, addresses[index], admin[index], &format!("{}-{version}", names[index]), text)
    };
    let mut running = [0, 1].map(|index| start(index, "old", OLD));
    let Some(front) = Front::haproxy(&config) else { return };
    let is_served_by = |name: &str| {
        eventually(&format!("{name} answers"), || {
            (front.connect().get("/").header("X-Instance") == Some(name)).then_some(())
        });
    };
    is_served_by("one-old");
    is_served_by("two-old");
    let traffic = Traffic::start(front.address(), 4, "/", &[OLD, NEW]);
    traffic.wait_answers(100);
    for index in [0, 1] {
        running[index].signal(SIGTERM);
        assert_eq!(running[index].wait_exit(), 0);
        // The other one serves alone meanwhile.
        traffic.wait_answers(100);
        running[index] = start(index, "new", NEW);
        is_served_by(&format!("{}-new", names[index]));
    }
    traffic.wait_answers(100);
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}\n{}", front.log());
    for server in &running {
        assert_eq!(server.journal.named("worker exited").len(), 0);
    }
}
