//! A real nginx on loopback, with the places that the test needs.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running nginx. Ends when dropped.
pub(crate) struct Nginx {
    child: Child,
    root: PathBuf,
    plain: u16,
    tls: u16,
    counted: u16,
}

impl Nginx {
    /// Starts it below `root`, which holds `www`; makes `ca.pem` there.
    pub(crate) fn start(root: &Path) -> Self {
        certificates(root);
        let (plain, tls, counted) = (free_port(), free_port(), free_port());
        std::fs::write(root.join("nginx.conf"), config(root, plain, tls, counted)).unwrap();
        // {PLAIN} is nginx's own form of a password in clear text.
        std::fs::write(root.join("users"), "alice:{PLAIN}s3cret\n").unwrap();
        std::fs::create_dir_all(root.join("tmp")).unwrap();
        let binary = std::env::var_os("DLM_NGINX").unwrap_or_else(|| "nginx".into());
        let mut command = Command::new(binary);
        command.arg("-p").arg(root).arg("-c").arg(root.join("nginx.conf")).args(["-e", "stderr"]);
        let child = command.stdin(Stdio::null()).spawn().expect("nginx starts");
        let nginx = Self { child, root: root.to_owned(), plain, tls, counted };
        let started = Instant::now();
        for port in [plain, tls, counted] {
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(started.elapsed() < Duration::from_secs(10), "nginx does not listen");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        nginx
    }
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.plain)
    }
    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls)
    }
    /// At the port whose bytes are counted.
    pub(crate) fn counted(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.counted)
    }
    /// Ends it, after every request did, and says how many bytes of files the counted port has served.
    ///
    /// A line is written when its request is over, and a client that was killed is noticed at once, also by a request
    /// that waits for its rate. So an orderly end is the moment when all lines are there. What a line counts is what was
    /// handed to the socket: of a killed client's requests also what lay in the buffers of both ends. That was sent for
    /// nothing too, and `sndbuf` keeps the part that would never have left this host small.
    pub(crate) fn bytes_served(mut self) -> u64 {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::QUIT,
        );
        let status = self.child.wait().unwrap();
        assert!(status.success(), "nginx: {status}");
        let log = std::fs::read_to_string(self.root.join("counted.log")).unwrap();
        log.lines().map(|line| line.parse::<u64>().expect("a number a line")).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        // A fast, orderly end: the master takes its workers with it.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn openssl(dir: &Path, words: &str) {
    let out = Command::new("openssl")
        .args(words.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(out.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&out.stderr));
}

/// An authority in `ca.pem`, and a certificate of it for localhost.
fn certificates(dir: &Path) {
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(
        dir,
        &format!(
            "req -x509 {curve} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority -addext keyUsage=critical,keyCertSign"
        ),
    );
    openssl(dir, &format!("req {curve} -keyout leaf.key -out leaf.csr -subj /CN=server"));
    std::fs::write(
        dir.join("leaf.ext"),
        "subjectAltName=IP:127.0.0.1,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
    )
    .unwrap();
    openssl(
        dir,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem",
    );
}

fn config(root: &Path, plain: u16, tls: u16, counted: u16) -> String {
    let root = root.display();
    // Workers of a root's nginx would run as nobody, who cannot read a private folder.
    let user = if rustix::process::getuid().is_root() { "user root;" } else { "" };
    format!(
        r#"{user}
worker_processes 2;
worker_shutdown_timeout 10s;
daemon off;
error_log stderr crit;
pid {root}/nginx.pid;
events {{ worker_connections 256; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    default_type application/octet-stream;
    client_body_temp_path {root}/tmp/body;
    proxy_temp_path {root}/tmp/proxy;
    fastcgi_temp_path {root}/tmp/fastcgi;
    uwsgi_temp_path {root}/tmp/uwsgi;
    scgi_temp_path {root}/tmp/scgi;
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate {root}/leaf.pem;
        ssl_certificate_key {root}/leaf.key;
        root {root}/www;
        location /slow/ {{ alias {root}/www/; limit_rate 3m; }}
        location /no-ranges/ {{ alias {root}/www/; max_ranges 0; }}
        location /packed/ {{ alias {root}/www/; gzip on; gzip_types *; gzip_min_length 1; }}
        location /chunked/ {{ alias {root}/www/; ssi on; ssi_types *; }}
        location /private/ {{ alias {root}/www/; auth_basic "x"; auth_basic_user_file {root}/users; }}
        location /moved/ {{ return 302 /big.bin; }}
        location /moved-to-tls/ {{ return 301 https://localhost:{tls}/big.bin; }}
        location /moved-to-plain/ {{ return 301 http://127.0.0.1:{plain}/big.bin; }}
        location /few-requests/ {{ alias {root}/www/; keepalive_requests 2; limit_rate 20m; }}
        location /one-connection/ {{ alias {root}/www/; limit_conn one 1; limit_rate 8m; }}
    }}
    log_format counted '$body_bytes_sent';
    server {{
        listen 127.0.0.1:{counted} sndbuf=64k;
        access_log {root}/counted.log counted;
        root {root}/www;
        limit_rate 25m;
    }}
    limit_conn_zone $server_port zone=one:1m;
}}
"#
    )
}
