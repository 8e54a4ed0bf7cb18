"""What is harmless in the command lines of known programs: a row for each.

A row is a text of items, in any order:
    start           a subcommand, shown as it is; the row "NAME start", where there is one, holds for what follows
    -x or -word     an option without a value; with small words behind two hyphens it needs no row
    -x:KIND         an option whose value has this kind (-x VALUE, -xVALUE, -x=VALUE)
    <KIND>          the kind of the next operand; <KIND>* of every further one
KIND is a name in `KINDS` of diagnose.parse.values, or one of those that diagnose.parse.mask knows.
"""

from __future__ import annotations

from diagnose.parse.harmless import words

SAME = {
    "node": "nodejs iojs tsx ts-node bun deno-node nodemon ts-node-dev",
    "python": "pypy pythonw uwsgi-python ipython py",
    "sh": "bash dash zsh ash ksh fish busybox-sh rbash",
    "sudo": "doas",
    "nohup": "setsid exec time command builtin stdbuf unbuffer tini dumb-init catatonit s6-setuidgid gosu su-exec do"
    " then else chrt ionice",
    "mysql": "mariadb mysqldump mysqladmin mysqlimport mysqlcheck mysqlshow mariadb-dump mycli",
    "mysqld": "mariadbd mysqld_safe mariadbd-safe",
    "redis-server": "valkey-server redis-sentinel",
    "nc": "ncat netcat",
    "npm": "pnpm yarn",
    "npm run": "pnpm run yarn run",
    "docker": "podman nerdctl",
    "docker run": "podman run nerdctl run docker create podman create",
    "docker compose": "docker-compose podman-compose",
    "rails server": "rails s",
    "vite": "vite-node vitepress astro nuxt nuxi remix svelte-kit parcel",
    "vite dev": "vite serve vite preview vite start vite build",
    "next dev": "next start next build",
    "postgres": "postmaster",
    "psql": "pg_dump pg_restore createdb pg_isready",
    "java": "javaw",
    "http.server": "SimpleHTTPServer ComplexHTTPServer",
    "curl": "wget",
    "ssh": "autossh",
    "containerd-shim": "containerd-shim-runc-v2",
}
"""Other names of what a row is about."""

ROWS = {
    # wrappers
    "nohup": "<program>",
    "sudo": "-E -H -n -i -S -b -k -u:hidden -g:hidden -p:hidden -h:hidden -C:number -D:path --user:hidden <program>",
    "env": "-i -u:hidden -C:path -S:shell <program>",
    "nice": "-n:number <program>",
    "timeout": "-s:hidden -k:number <number> <program>",
    "taskset": "-c:number <number> <program>",
    "strace": "-f -p:number -o:path -e:hidden <program>",
    "watch": "-n:number -d <program>",
    "xvfb-run": "-a <program>",
    "npx": "-y -p:hidden <program>",
    "bunx": "<program>",
    "bundle": "exec install",
    "bundle exec": "<program>",
    "poetry": "run install",
    "poetry run": "<program>",
    "pipenv": "run",
    "pipenv run": "<program>",
    "uv": "run sync",
    "uv run": "--with:hidden <program>",
    "pdm": "run",
    "pdm run": "<program>",
    "hatch": "run",
    "busybox": "<program>",
    "concurrently": "-k -n:hidden -c:hidden",
    "sh": "-c:shell -l -i -e -x -u -s -ec:shell -lc:shell -cl:shell -ic:shell -lic:shell <script>",
    "while": "true <hidden>",
    "sleep": "<number>",
    "cd": "<path>",
    # interpreters
    "python": "-m:modulerun -c:code -u -B -E -I -O -OO -P -R -S -s -b -d -i -q -v -x -X:hidden -W:hidden -Xutf8"
    " -Xdev -IS -Bu -uB <script>",
    "node": "-r:path -e:code -p:code -i -c --require:path --import:path --loader:path --eval:code --print:code"
    " --inspect:endpoint --inspect-brk:endpoint --inspect-port:endpoint --env-file:path --title:hidden watch <script>",
    "deno": "run serve task -A --allow-net:endpoint <script>",
    "deno task": "<task>",
    "ruby": "-e:code -I:path -r:hidden -w -W0 -W2 -S <script>",
    "perl": "-e:code -E:code -I:path -w -T -M:hidden -n -p <script>",
    "php": "-S:endpoint -t:path -d:hidden -r:code -f:path -c:path -q -n artisan <script>",
    "lua": "<script>",
    "Rscript": "-e:code <script>",
    "java": "-jar:jar -cp:paths -classpath:paths --class-path:paths --module-path:paths -p:paths -server -client -ea"
    " -esa -Xmx:number -Xms:number -Xss:number -Xmn:number -D:property -javaagent:path -m:hidden <class>",
    "dotnet": "run watch exec test build -c:word -f:hidden -p:hidden --project:path --urls:urls --launch-profile:hidden"
    " <script>",
    "dotnet run": "-c:word --project:path --urls:urls --launch-profile:hidden",
    "dotnet watch": "run",
    "go": "run test build",
    "go run": "<script>",
    "cargo": "run test build watch bench",
    "cargo run": "-p:hidden -r -q --bin:hidden --package:hidden --features:hidden",
    "mix": "phx.server run deps.get test compile",
    "iex": "-S:task <task>",
    "elixir": "--sname:hidden --cookie:hidden --erl:hidden <script>",
    "sbt": "run test",
    "gradle": "run bootRun test build",
    "gradlew": "run bootRun test build",
    "mvn": "spring-boot:run test install package clean jetty:run quarkus:dev -D:property -q",
    "mvnw": "spring-boot:run test install package clean jetty:run quarkus:dev -D:property -q",
    "make": "-j:number -C:path -f:path <task>*",
    "just": "<task>*",
    # Python servers
    "http.server": "-b:endpoint -d:path -p:hidden <port>",
    "uvicorn": "--app-dir:path --loop:word --http:word --ws:word --lifespan:word --interface:word --uds:path <app>",
    "gunicorn": "-b:endpoint -w:number -k:word -c:path -t:number -p:path -D -n:hidden -u:hidden -g:hidden"
    " -e:hidden --env:hidden --worker-class:word --chdir:path --pid:path --threads:number --name:hidden"
    " master worker [master] [worker] arbiter <app>",
    "hypercorn": "-b:endpoint -w:number -k:word -c:path <app>",
    "daphne": "-b:endpoint -p:port -u:path -v:number <app>",
    "granian": "--interface:word <app>",
    "waitress-serve": "--listen:endpoint --call <app>",
    "flask": "-A:app -p:port -h:endpoint --app:app run shell routes",
    "flask run": "-p:port -h:endpoint",
    "fastapi": "dev run <script>",
    "fastapi dev": "<script>",
    "fastapi run": "<script>",
    "django-admin": "runserver --settings:module",
    "django-admin runserver": "--settings:module <listen>",
    "manage.py": "runserver runserver_plus shell migrate test --settings:module",
    "manage.py runserver": "--settings:module -v:number <listen>",
    "manage.py runserver_plus": "--settings:module <listen>",
    "celery": "-A:app -P:word -c:number -l:word -Q:hidden -n:hidden -B --app:app worker beat flower events inspect",
    "celery worker": "-A:app -P:word -c:number -l:word -Q:hidden -n:hidden -B --pool:word",
    "celery beat": "-A:app -l:word -s:path",
    "celery flower": "-A:app",
    "jupyter": "lab notebook server console kernel",
    "jupyter-lab": "",
    "jupyter-notebook": "",
    "ipykernel_launcher": "-f:path",
    "streamlit": "run hello <script>",
    "streamlit run": "<script>",
    "pytest": "-q -x -v -vv -s -k:hidden -n:number <path>*",
    "tornado": "",
    "mkdocs": "serve build -a:endpoint -f:path --dev-addr:endpoint",
    "mkdocs serve": "-a:endpoint -f:path --dev-addr:endpoint",
    "sphinx-autobuild": "<path>*",
    "airflow": "webserver scheduler standalone worker triggerer api-server -p:port",
    "airflow webserver": "-p:port -w:number",
    "superset": "run -p:port -h:endpoint",
    "mlflow": "server ui -p:port -h:endpoint -w:number",
    "uwsgi": "-p:number -s:endpoint -w:module --http:endpoint --socket:endpoint --http-socket:endpoint --wsgi-file:path"
    " --module:app --ini:path --chdir:path",
    "supervisord": "-n -c:path",
    "debugpy": "--listen:endpoint --connect:endpoint <script>",
    "debugpy.adapter": "",
    # JavaScript servers
    "npm": "run start test ci install exec run-script dev serve build watch preview --prefix:path",
    "npm run": "<task>",
    "vite": "dev serve build preview start -p:port -c:path --mode:word",
    "vite dev": "-p:port -c:path --mode:word",
    "next": "dev start build -p:port -H:endpoint",
    "next dev": "-p:port -H:endpoint --turbo --turbopack <path>",
    "next-server": "<title>*",
    "ng": "serve build test",
    "ng serve": "-c:word --configuration:word",
    "react-scripts": "start build test",
    "start-server.js": "",
    "vue-cli-service": "serve build",
    "webpack": "serve watch build -c:path --mode:word",
    "webpack serve": "-c:path --mode:word",
    "webpack-dev-server": "-c:path --mode:word",
    "gatsby": "develop serve build -p:port -H:endpoint",
    "serve": "-l:listen -p:port -s -C -n <path>",
    "http-server": "-p:port -a:endpoint -c:number -o <path>",
    "live-server": "<path>",
    "json-server": "-p:port -H:endpoint -w:path <path>",
    "storybook": "dev build -p:port -h:endpoint",
    "storybook dev": "-p:port -h:endpoint",
    "turbo": "run dev build",
    "turbo run": "<task>",
    "nx": "serve run build",
    "pm2": "start list logs",
    "pm2 start": "<script>",
    "expo": "start",
    "wrangler": "dev",
    "firebase": "emulators:start serve",
    "medusa": "develop start",
    "strapi": "develop start",
    # Ruby, PHP and others
    "rails": "server s console c -p:port -b:endpoint -e:word -P:path -c:path",
    "rails server": "-p:port -b:endpoint -e:word -P:path -c:path -d",
    "puma": "-p:port -b:url -C:path -e:word -t:range -w:number cluster worker <title>*",
    "rackup": "-p:port -o:endpoint -E:word -s:word <script>",
    "unicorn": "-p:port -l:listen -c:path -E:word -D master worker <script>",
    "thin": "start -p:port -a:endpoint -e:word",
    "sidekiq": "-C:path -c:number -e:word -r:path",
    "jekyll": "serve s build -P:port -H:endpoint",
    "jekyll serve": "-P:port -H:endpoint",
    "hugo": "server serve -p:port -D -s:path",
    "hugo server": "-p:port -D -s:path",
    "artisan": "serve queue:work schedule:work tinker horizon",
    "php-fpm": "-F -D -y:path -c:path -R master process <titlepath>",
    "phpunit": "<path>*",
    # databases, brokers, caches
    "postgres": "-D:path -p:port -h:endpoint -k:path -c:pgsetting -i -B:number -N:number -F -S:number",
    "psql": "-h:endpoint -p:port -U:hidden -d:hidden -w -W",
    "mysqld": "-u:hidden -P:port -h:path --user:hidden",
    "mysql": "-h:endpoint -P:port -u:hidden -p:hidden -D:hidden -S:path --user:hidden",
    "mongod": "-f:path --dbpath:path --replSet:hidden",
    "mongo": "-u:hidden -p:hidden",
    "mongosh": "-u:hidden -p:hidden",
    "redis-server": "<redis>*",
    "redis-cli": "-h:endpoint -p:port -a:hidden -n:number -u:url ping info monitor",
    "memcached": "-d -m:number -p:port -U:port -u:hidden -l:listen -c:number -t:number -P:path -s:path -v -vv",
    "rabbitmq-server": "",
    "etcd": "",
    "minio": "server",
    "minio server": "<path>*",
    "clickhouse-server": "-C:path -P:path --config-file:path",
    "influxd": "run -config:path",
    "nats-server": "-p:port -a:endpoint -c:path -m:port -js -DV -D -V -sd:path",
    "zookeeper": "",
    "cockroach": "start start-single-node demo",
    "consul": "agent -dev -server -ui -bind:endpoint -client:endpoint -config-dir:path -config-file:path -data-dir:path"
    " -http-port:port -dns-port:port -encrypt:hidden -node:hidden -datacenter:hidden -retry-join:hidden",
    "consul agent": "-dev -server -ui -bind:endpoint -client:endpoint -config-dir:path -config-file:path -data-dir:path"
    " -http-port:port -dns-port:port -encrypt:hidden -node:hidden -datacenter:hidden -retry-join:hidden",
    "vault": "server agent -dev -config:path",
    "vault server": "-dev -config:path -dev-listen-address:endpoint -dev-root-token-id:hidden",
    "nomad": "agent -dev -config:path",
    "nomad agent": "-dev -config:path -bind:endpoint -data-dir:path",
    # web servers, proxies, tunnels
    "nginx": "-c:path -g:directive -p:path -e:path -t master process worker cache manager loader daemon off; on; off"
    " <titlepath>",
    "apache2": "-k:word -D:word -f:path -d:path",
    "httpd": "-f -k:word -D:word -p:listen -h:path -v -vv -d:path",
    "haproxy": "-f:path -W -Ws -D -db -p:path -q -x:path -S:hidden -sf:hidden",
    "caddy": "run start reverse-proxy file-server",
    "caddy run": "--adapter:word",
    "caddy reverse-proxy": "--from:endpoint --to:endpoint",
    "caddy file-server": "",
    "traefik": "",
    "envoy": "-c:path -l:word",
    "varnishd": "-a:endpoint -f:path -b:endpoint -F -j:hidden -s:hidden -T:endpoint -S:path",
    "lighttpd": "-f:path -D",
    "squid": "-N -f:path -d:number",
    "dnsmasq": "-d -k -C:path --conf-file:path --port:port",
    "unbound": "-d -c:path -p",
    "named": "-f -g -u:hidden -c:path -4 -6",
    "coredns": "-conf:path -dns.port:port",
    "sshd": "-D -d -e -R -T -f:path -p:port -o:hidden -h:path",
    "dropbear": "-F -E -p:listen -r:path",
    "ssh": "-N -f -T -t -n -q -v -vv -C -A -a -g -k -X -Y -M -4 -6 -NT -fN -Nf -TN -fNT -NfT -fNTq -tt -nNT -nNTf -fnNT"
    " -L:forward -R:forward -D:listen -W:forward -p:port -i:path -F:path -J:destination -o:sshoption -l:hidden"
    " -S:path -b:endpoint -c:hidden -m:hidden -w:hidden -M:port -NL:forward -fNL:forward -NfL:forward -NR:forward"
    " -ND:listen <destination> <hidden>*",
    "socat": "-d -dd -ddd -v -x -u -U -T:number -t:number <socat>*",
    "nc": "-l -k -v -vv -n -u -z -w:number -lk -lvn -lv -lnv -4 -6 -U:path -p:port -s:endpoint -e:hidden -c:hidden"
    " -q:number -lp:port -lvp:port -lnvp:port -nlvp:port -lkp:port <remote> <port>",
    "telnet": "<remote> <port>",
    "iperf3": "-s -c:remote -p:port -B:endpoint -D",
    "iperf": "-s -c:remote -p:port -u",
    "redir": "",
    "rinetd": "-f -c:path",
    "stunnel": "<path>",
    "ngrok": "http tcp tls start config",
    "ngrok http": "<listen>",
    "ngrok tcp": "<listen>",
    "cloudflared": "tunnel run --url:url --config:path",
    "frpc": "-c:path",
    "frps": "-c:path",
    "tailscaled": "--state:path --socket:path --port:port",
    "mitmproxy": "-p:port --listen-port:port --listen-host:endpoint",
    "tinyproxy": "-d -c:path",
    "privoxy": "<path>",
    "tor": "-f:path",
    # containers, clusters and the like
    "docker-proxy": "-proto:word -host-ip:endpoint -host-port:port -container-ip:endpoint -container-port:port"
    " -use-listen-fd",
    "dockerd": "-H:url --host:url --storage-driver:word --data-root:path --exec-root:path --log-level:word",
    "containerd": "-c:path -a:path -l:word",
    "containerd-shim": "-namespace:word -id:hidden -address:path",
    "conmon": "-c:hidden -u:hidden -n:hidden -r:path -b:path -p:path -s -t -l:hidden --api-version:number"
    " --log-level:word --exit-command:path --exit-command-arg:hidden --runtime-arg:hidden",
    "rootlessport": "",
    "rootlessport-child": "",
    "slirp4netns": "-c -e:number -r:number",
    "pasta": "",
    "docker": "run compose exec start logs build up -H:url --host:url",
    "docker run": "-d -i -t -it -ti -P -rm -p:publish -v:hidden -e:hidden -u:hidden -w:path -h:hidden --publish:publish"
    " --name:hidden --network:word --net:word --env:hidden --label:hidden --user:hidden --hostname:hidden"
    " --volume:hidden --mount:hidden --entrypoint:hidden <hidden>*",
    "docker exec": "-i -t -it -ti -d -u:hidden -e:hidden -w:path <hidden>*",
    "docker compose": "up down run exec logs start -f:path -p:hidden --project-name:hidden --profile:hidden",
    "docker compose up": "-d <hidden>*",
    "kubectl": "port-forward proxy logs exec get -n:word --namespace:hidden -c:hidden --context:hidden --address:host"
    " --kubeconfig:path",
    "kubectl port-forward": "-n:word --namespace:hidden --address:host --context:hidden <resource> <forward>*",
    "kubectl proxy": "-p:port",
    "k3s": "server agent",
    "minikube": "start tunnel service dashboard",
    "kubelet": "",
    "kube-proxy": "",
    "skaffold": "dev run",
    "tilt": "up",
    "oc": "port-forward login -n:word",
    "oc port-forward": "-n:word <resource> <forward>*",
    "gcloud": "beta emulators",
    "prometheus": "",
    "grafana": "server",
    "grafana-server": "-homepath:path -config:path",
    "node_exporter": "",
    "systemd": "",
    "init": "splash",
    "inetd": "",
    "xinetd": "-stayalive -pidfile:path -dontfork",
    "cupsd": "-l -C:path",
    "avahi-daemon": "running",
    "chronyd": "-F:number -d -n",
    "smbd": "",
    "vsftpd": "<path>",
    "master": "-w",
    "dovecot": "-F -c:path",
    "exim4": "-bd -q30m",
    "Xvfb": "<hidden>*",
    "code-server": "",
    "adb": "-L:listen fork-server server",
    "netdiag": "run replay checks explain schema --from:hidden <listen>*",
    "ip": "netns exec -n:hidden",
    "echo": "<hidden>*",
    "curl": "-u:hidden -U:hidden -s -S -f -v -L -k -I -i -X:hidden -H:hidden -d:hidden -o:path -b:hidden -A:hidden"
    " -F:hidden -e:hidden -x:url -m:number <url>*",
    "tail": "-f -F -n:number <path>*",
    "less": "<path>*",
    "cat": "<path>*",
}
"""The row of each program, script or module, by its name without a version."""

TITLES = {
    "nginx": "master process worker cache manager loader",
    "postgres": "checkpointer background writer walwriter autovacuum launcher worker logical replication stats"
    " collector archiver startup walsender walreceiver logger parallel for idle in transaction active io"
    " SELECT INSERT UPDATE DELETE BEGIN COMMIT authentication waiting [local] local",
    "sshd": "[listener] [priv] [net] [accepted] of startups",
    "sshd-session": "[priv] [net] [accepted]",
    "php-fpm": "master process pool",
    "redis-server": "[cluster] [sentinel]",
    "valkey-server": "[cluster] [sentinel]",
    "gunicorn": "master worker",
    "unicorn": "master worker",
    "puma": "cluster worker",
    "celeryd": "MainProcess -active-",
    "tmux": "server client",
    "dovecot": "master",
    "haproxy": "master worker",
    "apache2": "master",
}
"""The words of the titles that programs give themselves (setproctitle)."""

BY_NAME = {
    "port": "port ports",
    "number": (
        "workers threads processes backlog timeout concurrency connections requests size limit count interval jobs"
        " replicas retries depth max min num graceful keepalive"
    ),
    "endpoint": "host bind address addr listen ip hostname listener advertise",
    "host": "server upstream endpoint peer target",
    "url": "url uri origin",
    "urls": "urls",
    "path": (
        "config conf file dir directory path root log logfile pidfile pid socket cert home prefix chdir cwd basedir"
        " datadir tmpdir static datadir output dbpath logpath app-dir docroot certfile keyfile cafile project webroot"
    ),
    "word": (
        "level mode env environment format proto protocol driver transport loop lifespan worker-class storage-driver"
        " log-level loglevel network log-format strategy color adapter"
    ),
}
"""The kind of a long option's value, by the last word of its name."""

FLAGS = words(
    "reload debug verbose watch dev daemon daemonize foreground turbo turbopack open https insecure preload cgi"
    " directory-listing spa cors hot live strict-port strictPort disable-gpu headless allow-root single-process"
    " proxy-headers access-log autoreload no-reload rm detach interactive tty privileged init quiet silent help"
    " version production force trace-warnings experimental-modules enable-source-maps inspect inspect-brk nodaemon"
    " skip-grant-tables skip-networking standalone appendonly"
)
"""Long options without a value; and so are those that begin with no-, enable-, disable-, allow-, skip- and with-."""

WORDS = words(
    "true false on off yes no auto none null all 0 1"
    " trace debug info notice warning warn error err critical fatal verbose silent quiet normal"
    " production development testing test staging local release debug Release Debug prod dev"
    " tcp udp tcp4 tcp6 sctp unix http https http1 http2 h2 grpc tls json text plain combined common logfmt"
    " sync gthread gevent eventlet tornado asyncio uvloop uvicorn.workers.UvicornWorker prefork solo threads"
    " h11 httptools websockets wsproto wsgi asgi asgi3 asgi2 asgi3 rsgi"
    " host bridge default kube-system monitoring overlay overlay2 vfs btrfs zfs json-file journald k8s-file"
    " start stop graceful FOREGROUND NO_DETACH puma webrick thin falcon caddyfile always never"
)
"""Values that are harmless for the options that take one of a few words."""

TASKS = words(
    "run start dev develop development serve server watch build test preview prod production storybook e2e lint web"
    " api app client frontend backend docs start:dev start:prod start:debug dev:server dev:client dev:web dev:api"
    " serve:dev server:dev watch:dev build:watch all up phx.server run-server runserver"
)
"""Names that people give to the tasks of npm, make and just."""

SOCAT = words(
    "tcp tcp4 tcp6 tcp-listen tcp4-listen tcp6-listen tcp-l tcp-connect tcp4-connect tcp6-connect udp udp-listen"
    " udp4-listen unix unix-listen unix-connect unix-client openssl openssl-listen stdio stdin stdout vsock-listen"
    " vsock-connect abstract-listen abstract-connect open file pipe"
)
SOCAT_OPTIONS = words("fork reuseaddr reuseport nodelay keepalive crlf nonblock ipv6only")

RESOURCES = words("svc service services pod pods po deploy deployment deployments rs sts statefulset")
