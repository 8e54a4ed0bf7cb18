"""Of command lines only what is harmless is shown, and a developer recognises their own process."""

from __future__ import annotations

import secrets
import shlex
import string
import time
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from diagnose.parse.mask import mask_command, mask_path, mask_program, mask_text

CANARIES = ("hunter2Hunter2", "c4nary-9f8e7d6c5b4a", "Tr0ub4dor&3", "zqjxkvbwpfgh", "QWxhZGRpbjpvcGVu", "über-geheim7x")
"""A secret as people choose one, as programs make one, as one that is only letters."""

PLANTED = """
mysqld --password=% --port 3306
mysqld --password % --port 3306
mysql -u root -p% db
mysql -uroot:% -h db
sudo /usr/bin/mysqldump -p% --all
mariadb --user=% --password=%
redis-cli -a % ping
redis-cli -u redis://:%@h:6379
redis-server --requirepass %
redis-server *:6379 --masterauth %
mongosh -u admin -p %
mongosh mongodb://u:%@h1:27017,h2:27017/db
sshpass -p% ssh x
sshpass -p % ssh x
docker login -u bob -p % registry.example
docker run -e PASS=% -p 8080:80 nginx
docker run --env=% -d nginx
docker run --name % nginx
docker exec -it web mysql -p%
psql postgres://bob:%@localhost/db?sslmode=off
psql postgres://%@localhost/db
psql 'host=localhost password=%'
sqlplus scott/%@db
sqlplus %/tiger@db
sqlcmd -S h -U sa -P %
bcp db out f -U sa -P%
app amqp://u:%@h1,amqp://u:%@h2
app redis://:%@localhost
app redis://%@localhost
app http://h/%
app http://h/hook/%?x=y
app http://h/?key=%
app http://h/#%
app http://%:x@h/
app http://u:a/%@h/x
app http://u:a?%@h/x
app https://%.ngrok.io
app %://host/x
git clone https://%@github.com/x/y
app user:%@tcp(db:3306)/x
app bob@%:8080
app bob:%@host:80
curl -u bob:% http://x/
curl -ubob:% http://x/
curl --user=bob:% http://x/
curl -H 'Authorization: Bearer %' http://x/
curl -H 'X-Api-Key: %' http://x/
curl 'https://maps/api?key=%&x=1'
curl -d '{"a": "%"}' http://x/
curl -x http://u:%@proxy:3128 http://x/
wget --header=X:% http://x/
env PGPASSWORD=% psql
env GITHUB_TOKEN=% make
env DB_PASS='% with spaces %' x
env -S 'A=% python3 app.py'
sh -c 'A=% python3 app.py'
bash -lc 'export A=%; exec node server.js'
java -Dspring.datasource.password=% -jar app.jar
java -DdbPw=% -jar app.jar
java -DX=% -cp a.jar com.example.Main
java -jar app.jar --pw=%
java -jar app.jar %
java -javaagent:agent.jar=% -jar app.jar
java -Dx.url=http://u:%@h/ -jar a.jar
node server.js --api-key % --token %
node server.js %
node -e 'require("x")("%")'
node --title=% server.js
node --require ./x.js --token % server.js
openssl s_client -pass pass:%
app 'Server=db;Password=%;Database=x'
app '{"password": "%"}'
app '{"password":"a\\"%"}'
app {password:%}
app [%]
sh -c 'exec mysql -p%'
sh -c "run --password '% %' && echo ok"
sh -c "sh -c 'mysql -p%'"
sh -c 'echo % | app'
sh -c 'app > /tmp/% 2>&1'
sh -c 'app # %'
sh -c "app \\"%"
bash -c 'A=$(%) app'
'postgres: password=%'
'postgres: % db 10.0.0.1(5432) idle'
'postgres: bob % [local] idle'
'nginx: master process /usr/sbin/nginx -g %'
'sshd: %@pts/0'
'sshd: % [priv]'
'redis-server 127.0.0.1:6379 %'
'gunicorn: master [%]'
'puma 5.6.4 (tcp://0.0.0.0:3000) [%]'
'program %'
'worker: job % done'
app %
app --%
app -%
app -x%
app --x=%
app --token=%
app --token %
app --token=a,%
app --passwort %
app --mot-de-passe %
app --contraseña=%
app --hasło %
app --пароль=%
app --jwt %
app --secret-access-key %
app --access_token=%
app --accessToken %
app token=%
app token:%
app A=%
app @%
app +%
app /%
app /srv/%
app /srv/%/app
app --config /srv/%/app.yml
app --data-dir=/srv/%
app ./%
app ~/%
app ../x/%.json
app C:\\\\Users\\\\%\\\\x
app 1.2.3.4/%
app 1.2.3.4:%
app %:1.2.3.4
app localhost:%
app [::1]:%
app '% %'
app 'a b' %
app -- %
app -p %
app -p%
app -P:%
app --port=%
app --port %
app --host %=1
app --bind 127.0.0.1:8000,%
app --workers %
app --log-level %
app --url http://u:%@h
app --exec 'x %'
/tmp/%/app
/tmp/%/app %
/% %
/opt/app/%
./% x
python3 app.py %
python3 -c 'print("%")'
python3 -c 'x' %
python3 -X % app.py
python3 -W%
python3 -m http.server 8000 %
python3 -m http.server %
python3 manage.py runserver %
python3 --unknown % app.py
uvicorn main:app --%=1
uvicorn main:app --header 'x-key:%'
uvicorn --factory %
gunicorn --env K=% app:app
gunicorn -e K=% app:app
gunicorn -n % app:app
gunicorn app:app(%)
flask --app % run
celery -A proj worker -n %
celery -A proj -b redis://:%@h worker
jupyter lab --NotebookApp.token=%
jupyter lab --ServerApp.password %
streamlit run app.py -- %
php -S localhost:8000 -d x=%
php artisan serve %
ruby -e '%'
ruby bin/rails s -e %
perl -e '%' %
ngrok authtoken %
ngrok http 8080 --basic-auth u:%
ngrok http 8080 --authtoken=%
cloudflared tunnel run --token %
consul agent -encrypt %
consul agent -encrypt=% -dev
vault server -dev -dev-root-token-id=%
vault server -dev -dev-root-token-id %
elixir --cookie % app.exs
erl -setcookie % -noshell
rabbitmqctl add_user bob %
ssh -N -L 8080:localhost:5000 %@jump
ssh jump %
ssh -i /home/bob/% jump
ssh -o ProxyCommand=% jump
ssh -L8080:%:x jump
socat TCP-LISTEN:8080,fork OPENSSL:h:443,%
socat TCP:%:x STDIO
socat EXEC:% STDIO
kubectl port-forward svc/web 8080:80 --token=%
kubectl port-forward svc/% 8080:80
kubectl --token % proxy
helm upgrade --set a=%
terraform apply -var a=%
vncserver -passwd %
Xvnc -rfbauth /x/%
openvpn --auth-user-pass %
stunnel -p %
x11vnc -passwd %
htpasswd -b f u %
smbclient -U u%% //h/s
ldapsearch -w % -D cn=x
ldapsearch -x -w% -b dc=x
ipmitool -P % -H h
snmpget -v2c -c % h
snmpwalk -A % h
rdesktop -p % h
xfreerdp /p:% /v:h
restic -r s3:h/b --password-command 'echo %'
borg serve --restrict-to-path /b/%
minio server /data --secret %
etcd --name % --initial-cluster-token=%
npm run dev -- --key=%
npm run %
npm --//registry/:_authToken=% start
vite --port 5173 --define X=%
next dev -p 3000 %
make run PASS=%
cargo run -- --key %
go run main.go -key=%
go run main.go %
dotnet run --ConnectionStrings:Db=%
dotnet App.dll --key %
nohup app % &
timeout 5 app %
nice -n 5 app %
sudo -u % app
sudo app %
watch -n 1 'app %'
tail -f %
nc % 80
nc h %
telnet h %
login -p %
su - %
busybox httpd -r %
supervisord -c %
tini -- app %
dumb-init app %
pm2 start app.js -- %
""".strip().splitlines()


def argv(line: str, canary: str) -> list[str]:
    """The line's words with the canary in them, quoted or not."""
    return [word.replace("%", canary) for word in shlex.split(line)]


def survives(canary: str, shown: str) -> bool:
    """Whether the secret, or a telling part of it, can be read."""
    plain = shown.lower()
    return any(part.lower() in plain for part in (canary, canary[:8], canary[-8:]))


@pytest.mark.parametrize("canary", CANARIES)
def test_no_canary_survives_wherever_it_stands(canary: str) -> None:
    assert len(PLANTED) >= 150
    told = {line: mask_command(argv(line, canary)) for line in PLANTED}
    assert {line: shown for line, shown in told.items() if survives(canary, shown) or "***" not in shown} == {}


@pytest.mark.parametrize("line", PLANTED)
def test_what_is_hidden_stays_so_when_it_is_hidden_again(line: str) -> None:
    shown = mask_command(argv(line, CANARIES[0]))
    assert mask_command(shown.split(" ")) == shown


WHOLE = """
python3 -m http.server 8000 --bind 127.0.0.1
uvicorn main:app --reload --port 5000
ssh -N -L 8080:localhost:5000 jump
java -jar /opt/app.jar --server.port=8080
python3 app.py
python3 -u app.py
/usr/bin/python3.11 /usr/local/bin/uvicorn main:app --host 0.0.0.0 --port 8000
python -m uvicorn app.main:app --reload --host 0.0.0.0 --port 8000
python manage.py runserver 0.0.0.0:8000
python manage.py runserver 8000
python -m flask --app hello run --port 5000
python3 -m http.server
flask run --port 5000
fastapi dev main.py --port 8001
gunicorn -w 4 -b 127.0.0.1:8000 app:app
gunicorn proj.wsgi:application --bind unix:/run/app.sock --workers 3 --timeout 60
hypercorn main:app --bind 0.0.0.0:8000
celery -A proj worker -l info
streamlit run app.py --server.port 8501
jupyter lab --ip=0.0.0.0 --port=8888 --no-browser
mkdocs serve -a 127.0.0.1:8000
node server.js
node dist/index.js
node --inspect=127.0.0.1:9229 --max-old-space-size=4096 dist/index.js
node /home/bob/shop/node_modules/.bin/vite --port 5173 --host
node node_modules/next/dist/bin/next dev -p 3000
npm run dev
npm start
npx vite --port 5173
vite --port 5173
next dev -p 3000
ng serve --port 4200
deno run -A main.ts
ruby bin/rails s -p 3000
rails server -b 0.0.0.0 -p 3000
bundle exec puma -p 3000
jekyll serve --port 4000
php -S localhost:8000 -t public
php artisan serve --port=8001
dotnet run
dotnet run --urls http://localhost:5000
dotnet MyApp.dll --urls http://0.0.0.0:5000
cargo run
cargo run --release
go run main.go
go run ./cmd/server
hugo server -D --port 1313
mix phx.server
mvn spring-boot:run
./gradlew bootRun
java -Xmx512m -cp a.jar:lib/b.jar com.example.Main
java -Dserver.port=9090 -jar target/demo-0.0.1.jar
kubectl port-forward svc/web 8080:80
kubectl port-forward pod/web-0 8080:80 --address 0.0.0.0
ssh -fN -R 9000:127.0.0.1:3000 jump.example.com
socat TCP-LISTEN:8080,fork TCP:localhost:5000
socat TCP-LISTEN:8080,fork,reuseaddr,bind=127.0.0.1 UNIX-CONNECT:/run/app.sock
nc -l 8080
nc -lk -p 8080
ngrok http 8080
cloudflared tunnel --url http://localhost:3000
/usr/bin/docker-proxy -proto tcp -host-ip 0.0.0.0 -host-port 8080 -container-ip 172.17.0.2 -container-port 80
docker compose up
dockerd --host unix:///run/docker.sock --userland-proxy=false
/usr/sbin/sshd -D
/usr/sbin/mysqld --basedir=/usr --datadir=/var/lib/mysql --port=3306
/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main -c config_file=/etc/postgresql/15/main/my.conf
postgres -D /usr/local/pgsql/data -p 5433
redis-server *:6379
redis-server 127.0.0.1:6379
redis-server /etc/redis/redis.conf
memcached -m 64 -p 11211 -l 127.0.0.1
mongod --dbpath /var/lib/mongodb --port 27017
haproxy -f /etc/haproxy/haproxy.cfg
caddy run --config /etc/caddy/Caddyfile
caddy reverse-proxy --from :2015 --to 127.0.0.1:9000
etcd --listen-client-urls http://127.0.0.1:2379
prometheus --config.file=/etc/prometheus/prometheus.yml --web.listen-address=:9090
nginx: master process /usr/sbin/nginx -g daemon off;
nginx: worker process
gunicorn: master [app:app]
next-server (v14.1.0)
http-server -p 8080
serve -s build -l 3000
supervisord -c /etc/supervisord.conf
poetry run uvicorn main:app
netdiag run 127.0.0.1:8080
-bash
""".strip().splitlines()


@pytest.mark.parametrize("line", WHOLE)
def test_a_developer_reads_an_everyday_command_whole(line: str) -> None:
    assert len(WHOLE) >= 60
    assert mask_command(line.split(" ")) == line
    assert mask_command([line]) == line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("docker run -p 8080:80 -e PASS=x --name web nginx", "docker run -p 8080:80 -e *** --name *** ***"),
        ("nginx -g 'daemon off;'", "nginx -g daemon off;"),
        ("sh -c 'A=x exec python3 -m http.server 8000'", "sh -c ***=*** exec python3 -m http.server 8000"),
        ("bash -c 'cd /srv/app && npm run dev'", "bash -c cd /srv/app && npm run dev"),
        ("sudo -u bob node server.js", "sudo -u *** node server.js"),
        ("'postgres: bob shop 10.0.0.1(5432) idle'", "postgres: *** *** 10.0.0.1(5432) idle"),
        ("'sshd: bob@pts/0'", "sshd: ***"),
        ("app http://u:p@h:80/x?y=z", "app http://***@h:80/***"),
        ("app http://localhost:3000/", "app http://localhost:3000/"),
        ("ssh bob@jump.example.com ls", "ssh ***@jump.example.com ***"),
        ("/srv/s3cr3tT0k3n/app.py", "/srv/***/app.py"),
        ("app /srv/3f786850e387550fdab836ed7e6dc881/data", "app /srv/***/data"),
        ("app --pin 1234 8080 scott/tiger", "app --pin *** *** ***"),
        ("app --unknown-long /etc/app.conf 10.0.0.7:5432", "app --unknown-long /etc/app.conf 10.0.0.7:5432"),
        ("mongod --bind_ip 127.0.0.1", "mongod --*** 127.0.0.1"),
        ("app '' x", "app  ***"),
        ("", ""),
    ],
)
def test_the_rest_is_replaced_and_nothing_else(line: str, shown: str) -> None:
    assert mask_command(shlex.split(line)) == shown


LETTERS = string.ascii_letters + string.digits
TOKENS = st.integers(16, 48).flatmap(lambda size: st.text(LETTERS + "+/=-_", min_size=size, max_size=size))


def is_random(token: str) -> bool:
    """As secrets are: of small and capital letters and digits, and no word in it."""
    mixed = any(map(str.islower, token)) and any(map(str.isupper, token)) and any(map(str.isdigit, token))
    return mixed and len(set(token)) > len(token) // 2


@given(TOKENS, st.sampled_from(PLANTED))
def test_a_random_word_planted_anywhere_never_survives(token: str, line: str) -> None:
    assume(is_random(token) and "/" not in token)
    assert token not in mask_command(argv(line, token))


@pytest.mark.parametrize("make", [secrets.token_hex, secrets.token_urlsafe])
def test_no_token_of_a_password_manager_survives_in_a_path_or_as_a_value(make: object) -> None:
    assert callable(make)
    for _ in range(300):
        token = make(16)
        for line in ("app /srv/%/x", "app --config=%", "app --host %", "python3 %", "app --url http://%/", "-%"):
            assert token not in mask_command(argv(line, token)), (token, line)


@given(st.lists(st.text(max_size=40), max_size=6))
@example(["-p", ""])
@example(["\x00", "\n", "="])
@example(["***=***", "-"])
@example(["sh", "-c", "'"])
@example(["sh", "-c"])
def test_any_command_line_is_masked_without_a_crash(words: list[str]) -> None:
    assert isinstance(mask_command(words), str)


WORDS = st.sampled_from(
    [
        *{word for line in (*PLANTED, *WHOLE) for word in line.replace("'", "").replace('"', "").split()},
        "--",
        "-",
        "***",
    ]
)


@given(st.lists(WORDS, max_size=8))
def test_to_hide_it_again_changes_nothing(words: list[str]) -> None:
    shown = mask_command(words)
    assert mask_command(shown.split(" ")) == shown


@pytest.mark.parametrize(
    "hostile", ["a", "a:", "://", "pass ", "--x=", "'", '"a', "x@", "a.b-", "= ", "/", "[", "sh -c ", "-", "\\"]
)
def test_a_hostile_command_line_costs_no_more_than_a_moment(hostile: str) -> None:
    text = hostile * (8192 // len(hostile))
    started = time.perf_counter()
    for words in ([text], text.split(), ["sh", "-c", text], ["app", text]):
        mask_command(words)
    mask_text(text)
    # seconds, not milliseconds: only a pattern that explodes fails
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Bind for 0.0.0.0:8080 failed: port is already allocated", None),
        ('exec: "/app/run.sh": permission denied', None),
        ('exec: "hunter2": executable file not found in $PATH', 'exec: "***": executable file not found in ***'),
        ("dial unix:///run/docker.sock: connect: no such file", None),
        ("token=abc for user bob", "*** for user bob"),
        ("no such container: 3f786850e387", "no such container: ***"),
        ("-A INPUT -m comment --comment hunter2x7", "*** INPUT *** comment *** ***"),
    ],
)
def test_of_a_message_plain_words_and_addresses_stay(text: str, shown: str | None) -> None:
    assert mask_text(text) == (text if shown is None else shown)
    assert mask_text(mask_text(text)) == mask_text(text)


def test_paths_and_names_of_programs() -> None:
    assert mask_path("/usr/lib/jvm/java-17-openjdk-amd64/bin/java") == "/usr/lib/jvm/java-17-openjdk-amd64/bin/java"
    assert mask_path("/tmp/go-build3948573829/b001/exe/main") == "/tmp/***/b001/exe/main"
    assert mask_program("node", "/usr/bin/node") == "node"
    assert mask_program("x9-S3cr3t", "/opt/x9-S3cr3t-app") == "x9-S3cr3t"
    assert mask_program("npm run dev", "/usr/bin/node") == "npm run dev"
    assert mask_program("worker hunter2", "/usr/bin/node") == "worker ***"


def cost(words: Sequence[str]) -> float:
    """Seconds."""
    started = time.perf_counter()
    mask_command(words)
    return time.perf_counter() - started


def test_the_cost_grows_with_the_length_alone() -> None:
    short, long = (min(cost(["app", *["--x=/a/b/c"] * size]) for _ in range(3)) for size in (500, 5000))
    assert long < 60 * short
