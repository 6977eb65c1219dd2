# shellcheck shell=bash
# Certificates for tests, below $dir/certs: a root, an issuing authority below it, and what `certificate` makes.
# Sourced after server.sh, by scripts that name openssl among their programs. All keys are P-256.

certs=$dir/certs

# authority NAME writes the files and the configuration that `openssl ca` wants for NAME.
authority() {
	mkdir -p "$certs/$1"
	: >"$certs/$1/index.txt"
	cat >"$certs/$1/ca.cnf" <<-CNF
		[ca]
		default_ca = this
		[this]
		new_certs_dir = $certs/$1
		database = $certs/$1/index.txt
		certificate = $certs/$1.crt
		private_key = $certs/$1.key
		default_md = sha256
		rand_serial = yes
		unique_subject = no
		policy = any
		copy_extensions = copy
		[any]
		commonName = supplied
		[authority]
		basicConstraints = critical,CA:TRUE
		keyUsage = critical,keyCertSign,cRLSign,digitalSignature
		subjectKeyIdentifier = hash
		[leaf]
		basicConstraints = critical,CA:FALSE
		keyUsage = critical,digitalSignature
		extendedKeyUsage = serverAuth,clientAuth
		subjectKeyIdentifier = hash
		authorityKeyIdentifier = keyid
	CNF
}

# request NAME OPTION... makes a key and a request for a certificate.
request() {
	local name=$1
	shift
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=pup test $name" \
		-keyout "$certs/$name.key" -out "$certs/$name.csr" "$@"
}

# sign AUTHORITY EXTENSIONS NAME FROM UNTIL signs the request of that name; times as `date -d` reads them.
sign() {
	openssl ca -batch -notext -config "$certs/$1/ca.cnf" -extensions "$2" \
		-startdate "$(date -u -d "$4" +%Y%m%d%H%M%SZ)" -enddate "$(date -u -d "$5" +%Y%m%d%H%M%SZ)" \
		-in "$certs/$3.csr" -out "$certs/$3.crt" ${6:+"$6"}
}

# certificate NAME [FROM UNTIL [SAN]] issues one for this machine. NAME.chain.crt has the issuer's behind it.
certificate() {
	local from=${2:-yesterday} until=${3:-90 days}
	request "$1" -addext "subjectAltName=${4:-DNS:localhost,IP:127.0.0.1,IP:::1}"
	sign issuing leaf "$1" "$from" "$until"
	cat "$certs/$1.crt" "$certs/issuing.crt" >"$certs/$1.chain.crt"
}

# self_signed NAME makes a certificate that nobody vouches for.
self_signed() {
	request "$1" -x509 -days 90 -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' -out "$certs/$1.chain.crt"
}

# staple NAME writes what an OCSP responder says about the certificate now, to NAME.ocsp.
staple() {
	local issuer=$certs/issuing.crt
	openssl ocsp -no_nonce -issuer "$issuer" -cert "$certs/$1.crt" -reqout "$certs/$1.ocsp-request"
	openssl ocsp -index "$certs/issuing/index.txt" -CA "$issuer" -rsigner "$issuer" -rkey "$certs/issuing.key" \
		-ndays 7 -reqin "$certs/$1.ocsp-request" -respout "$certs/$1.ocsp"
}

# revoke NAME marks a certificate as revoked; staple it afterwards.
revoke() { openssl ca -config "$certs/issuing/ca.cnf" -revoke "$certs/$1.crt"; }

# make_certificates makes both authorities and calls the function MORE for the rest; openssl's talk goes to a log.
make_certificates() {
	mkdir -p "$certs"
	{
		authority root
		authority issuing
		request root
		sign root authority root '2 days ago' '10 years' -selfsign
		request issuing
		sign root authority issuing '2 days ago' '5 years'
		"$1"
	} >"$dir/openssl.log" 2>&1
	say ca "$certs/root.crt"
}
