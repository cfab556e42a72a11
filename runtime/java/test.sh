#!/bin/sh
# Builds and tests the client with a JDK of 22 or newer: that of JAVA_HOME, or one that is installed. IGPT_ORT_LIBRARY
# names ONNX Runtime's shared library. Arguments go to Maven.
set -eu
cd "$(dirname "$0")"

# The feature release of the JDK in a directory; 0 if it has none that can compile.
release() {
  if [ -x "$1/bin/javac" ] && version=$("$1/bin/javac" -version 2>&1); then
    version=${version#javac }
    echo "${version%%[!0-9]*}"
  else
    echo 0
  fi
}

found_jdk() {
  for home in "${JAVA_HOME:-}" /usr/lib/jvm/*; do
    if [ -n "$home" ] && [ "$(release "$home")" -ge 22 ]; then
      JAVA_HOME=$home
      export JAVA_HOME
      return 0
    fi
  done
  return 1
}

if ! command -v mvn > /dev/null; then
  echo "java: skipped, as there is no Maven (Debian: apt-get install maven)"
  exit 0
fi
if ! found_jdk; then
  echo "java: skipped, as there is no JDK of 22 or newer; set JAVA_HOME to one"
  exit 0
fi
exec mvn --batch-mode --no-transfer-progress "${@:-verify}"
